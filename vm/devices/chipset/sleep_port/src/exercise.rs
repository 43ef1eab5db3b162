//! Drives the device with a script of arbitrary operations, for fuzzing and tests.

use crate::AnnouncementSink;
use crate::SleepPort;
use chipset_device::exercise::exercise;

/// A port that arbitrary values are written to.
pub fn sleep_port(script: &[u8]) {
    let sink = AnnouncementSink::new(|announcement| drop(announcement.to_string()));
    let mut port = SleepPort::new(SleepPort::DEFAULT_PORT, sink);
    exercise(&mut port, script, &mut |_| ());
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn survives_random_scripts() {
        for seed in 0..200 {
            sleep_port(&pseudo_random_script(seed, 1_500));
        }
    }
}
