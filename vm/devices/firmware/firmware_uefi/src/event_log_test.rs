use super::*;
use zerocopy::IntoBytes as _;

fn event(id: u32, data: &[u8]) -> Vec<u8> {
    let header = EventHeader {
        id: id.into(),
        header_size: (EventHeader::SIZE as u32).into(),
        data_size: (data.len() as u32).into(),
        ..EventHeader::default()
    };
    [header.as_bytes(), data].concat()
}

fn boot(status: u32) -> Vec<u8> {
    let data = BootDeviceEvent {
        status: status.into(),
        device_path_size: 4.into(),
        ..BootDeviceEvent::default()
    };
    event(
        BootDeviceEvent::ID,
        &[data.as_bytes(), &[0x7f, 0xff, 4, 0]].concat(),
    )
}

fn outcome(statuses: &[u32]) -> BootSummary {
    let events: Vec<_> = statuses.iter().flat_map(|status| boot(*status)).collect();
    summarize(&events).unwrap().unwrap()
}

#[test]
fn the_outcome_has_the_documented_precedence() {
    let summary = outcome(&[0x1_0000, 0x1_0005, 0x3_0001]);
    assert_eq!(summary.outcome, BootOutcome::Booted);
    assert_eq!((summary.was_refused, summary.attempts), (false, 3));
    let summary = outcome(&[0x1_0005, 0x1_0006]);
    assert_eq!(summary.outcome, BootOutcome::NoDevice);
    let summary = outcome(&[0x2_0003, 0x1_0001]);
    let last = BootDeviceStatus(0x1_0001);
    assert_eq!(summary.outcome, BootOutcome::Failed(last));
    assert!(summary.was_refused);
    assert!(outcome(&[0x2_0003, 0x1_0005]).was_refused);
}

#[test]
fn other_events_say_nothing_of_booting() {
    let events = [event(7, &[1, 2, 3]), event(8, &[])].concat();
    assert_eq!(summarize(&events), Ok(None));
    let events = [event(7, &[1, 2, 3]), boot(0x1_0005)].concat();
    assert_eq!(summarize(&events).unwrap().unwrap().attempts, 1);
}

#[test]
fn malformed_events_end_with_an_error() {
    let good = boot(0x1_0005);
    for (at, value) in [(56, 63), (56, 0), (57, 1), (60, 0), (60, 29), (63, 0xff)] {
        let mut events = [good.clone(), good.clone()].concat();
        events[good.len() + at] = value;
        let error = ChannelError::Event(good.len());
        assert_eq!(summarize(&events), Err(error), "{at} {value}");
    }
    let cut = &good[..good.len() - 1];
    assert_eq!(summarize(cut), Err(ChannelError::Event(0)));
    assert_eq!(summarize(&good[..20]), Err(ChannelError::Event(0)));
}
