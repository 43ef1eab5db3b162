use crate::AnnouncementSink;
use crate::SleepAnnouncement;
use crate::SleepPort;
use crate::SleepState;
use chipset_device::ChipsetDevice;
use chipset_device::IoError;
use chipset_device::SavedState;
use parking_lot::Mutex;
use std::sync::Arc;

const PREPARING: SleepAnnouncement = SleepAnnouncement::PreparingToSleep(SleepState::S4);
const WOKE: SleepAnnouncement = SleepAnnouncement::Woke(SleepState::S4);

fn device() -> (SleepPort, Arc<Mutex<Vec<SleepAnnouncement>>>) {
    let received: Arc<Mutex<Vec<_>>> = Arc::default();
    let log = received.clone();
    let sink = AnnouncementSink::new(move |announcement| log.lock().push(announcement));
    (SleepPort::new(SleepPort::DEFAULT_PORT, sink), received)
}

#[test]
fn announcements_reach_the_sink_in_order() {
    let (mut port, received) = device();
    assert_eq!(port.fixed_resources().ports, [0x506..=0x506]);
    assert_eq!(port.inspect()["last"], serde_json::Value::Null);
    for byte in [0x14, 0x24, 0x14] {
        port.write_port(0x506, &[byte]).unwrap();
    }
    assert_eq!(*received.lock(), [PREPARING, WOKE, PREPARING]);
    assert_eq!(port.last, Some(PREPARING));
    assert_eq!(port.inspect()["last"], "preparing for S4");
    port.write_port(0x506, &[0x23]).unwrap();
    assert_eq!(port.inspect()["last"], "woke from S3");
}

#[test]
fn invalid_writes_are_rejected() {
    let (mut port, received) = device();
    for byte in [0, 0x04, 0x10, 0x16, 0x34, 0x84, 0xff] {
        assert_eq!(port.write_port(0x506, &[byte]), Err(IoError::InvalidValue));
    }
    let wide = port.write_port(0x506, &[0x14, 0]);
    assert_eq!(wide, Err(IoError::InvalidAccessSize));
    assert_eq!((received.lock().len(), port.last), (0, None));
}

#[test]
fn the_port_reads_as_present() {
    let (mut port, _) = device();
    let mut data = [0xff];
    port.read_port(0x506, &mut data).unwrap();
    assert_eq!(data, [SleepPort::PRESENT]);
}

#[test]
fn the_last_announcement_is_kept_until_a_reset() {
    let (mut port, _) = device();
    port.write_port(0x506, &[0x24]).unwrap();
    let state = port.save().unwrap();
    let (mut other, received) = device();
    other.restore(&state).unwrap();
    assert_eq!(other.last, Some(WOKE));
    assert!(received.lock().is_empty(), "a restore announces nothing");
    // The map {1: 0x24}, and one with an invalid value.
    assert_eq!(state.as_bytes(), [0xa1, 1, 0x18, 0x24]);
    let wrong = SavedState::from_bytes(vec![0xa1, 1, 0x18, 0x34]);
    other.restore(&wrong).unwrap_err();
    assert_eq!(other.last, Some(WOKE));
    other.reset();
    assert_eq!(other.last, None);
    let state = other.save().unwrap();
    port.restore(&state).unwrap();
    assert_eq!(port.last, None);
}
