use crate::routes::RangeRoutes;
use crate::routes::Routes;
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
    fn the_search_equals_a_scan(
        ranges in disjoint().prop_shuffle(),
        addresses in prop::collection::vec(any::<u16>(), 100),
    ) {
        let wide = ranges.iter().map(|(r, o)| (u64::from(*r.start())..=u64::from(*r.end()), *o));
        let routes = Routes::new(
            RangeRoutes::new(ranges.clone()),
            RangeRoutes::new(wide),
            Vec::new(),
            RangeRoutes::default(),
        );
        let edges = ranges.iter().flat_map(|(range, _)| {
            let (start, end) = (*range.start(), *range.end());
            [start.wrapping_sub(1), start, end, end.wrapping_add(1)]
        });
        for address in addresses.into_iter().chain(edges).chain([0, u16::MAX]) {
            prop_assert_eq!(routes.port(address), naive(&ranges, address));
            prop_assert_eq!(routes.mmio(address.into()), naive(&ranges, address));
        }
    }
}

#[test]
fn the_ends_of_the_address_space() {
    let routes = RangeRoutes::new([(0..=0, 1), (u64::MAX..=u64::MAX, 2)]);
    let routes = Routes::new(
        RangeRoutes::default(),
        routes,
        Vec::new(),
        RangeRoutes::default(),
    );
    assert_eq!(routes.mmio(0), Some(1));
    assert_eq!(routes.mmio(1), None);
    assert_eq!(routes.mmio(u64::MAX - 1), None);
    assert_eq!(routes.mmio(u64::MAX), Some(2));
}
