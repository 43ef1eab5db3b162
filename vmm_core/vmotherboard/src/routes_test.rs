use crate::routes::RangeRoutes;
use proptest::prelude::*;
use std::ops::RangeInclusive;

/// Disjoint ranges: cut points, every other gap between them claimed.
fn disjoint() -> impl Strategy<Value = Vec<(RangeInclusive<u16>, usize)>> {
    prop::collection::btree_set(any::<u16>(), 0..40).prop_map(|cuts| {
        let cuts: Vec<_> = cuts.into_iter().collect();
        cuts.chunks_exact(2)
            .enumerate()
            .map(|(owner, cut)| (cut[0]..=cut[1], owner))
            .collect()
    })
}

fn naive(ranges: &[(RangeInclusive<u16>, usize)], address: u16) -> Option<usize> {
    let mut found = ranges.iter().filter(|(range, _)| range.contains(&address));
    found.next().map(|(_, owner)| *owner)
}

proptest! {
    #[test]
    fn the_search_equals_a_linear_search(
        ranges in disjoint().prop_shuffle(),
        addresses in prop::collection::vec(any::<u16>(), 100),
    ) {
        let wide = ranges.iter().map(|(r, o)| (u64::from(*r.start())..=u64::from(*r.end()), *o));
        let (routes, wide) = (RangeRoutes::new(ranges.clone()), RangeRoutes::new(wide.collect()));
        let edges = ranges.iter().flat_map(|(range, _)| {
            let (start, end) = (*range.start(), *range.end());
            [start.wrapping_sub(1), start, end, end.wrapping_add(1)]
        });
        for address in addresses.into_iter().chain(edges).chain([0, u16::MAX]) {
            prop_assert_eq!(routes.find(address), naive(&ranges, address));
            prop_assert_eq!(wide.find(address.into()), naive(&ranges, address));
        }
    }
}

#[test]
fn the_ends_of_the_address_space() {
    let routes = RangeRoutes::new(vec![(0..=0, 1), (u64::MAX..=u64::MAX, 2)]);
    assert_eq!(routes.find(0), Some(1));
    assert_eq!(routes.find(1), None);
    assert_eq!(routes.find(u64::MAX - 1), None);
    assert_eq!(routes.find(u64::MAX), Some(2));
    let routes = RangeRoutes::new(vec![
        (u64::MAX..=u64::MAX, 1),
        (0..=0, 2),
        (0..=u64::MAX, 3),
        (0..=u64::MAX, 4),
    ]);
    assert_eq!(routes.find(0), Some(2));
    assert_eq!(routes.find(1), Some(3));
    assert_eq!(routes.find(u64::MAX - 1), Some(3));
    assert_eq!(routes.find(u64::MAX), Some(1));
}

/// Ranges that overlap in all ways, some of them empty.
fn any_ranges() -> impl Strategy<Value = Vec<(RangeInclusive<u16>, usize)>> {
    let edge = || prop_oneof![4 => 0_u16..60, 1 => u16::MAX - 3..=u16::MAX];
    prop::collection::vec((edge(), edge()), 0..16).prop_map(|edges| {
        let ranges = edges.into_iter().enumerate();
        ranges.map(|(owner, (a, b))| (a..=b, owner)).collect()
    })
}

proptest! {
    #[test]
    fn the_first_of_overlapping_ranges_owns(ranges in any_ranges()) {
        let routes = RangeRoutes::new(ranges.clone());
        for address in (0..64).chain(u16::MAX - 5..=u16::MAX) {
            prop_assert_eq!(routes.find(address), naive(&ranges, address), "{}", address);
        }
    }
}
