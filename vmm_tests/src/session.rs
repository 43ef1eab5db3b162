//! Sessions of the guest's operating system, which hibernation preserves.

use crate::OpenvmmExit;
use crate::Vm;
use anyhow::Context;

/// What identifies a session of the guest's operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSession {
    /// The kernel's random id of the session.
    pub boot_id: String,
    /// A random value in the memory of one of its processes.
    pub token: String,
    /// The id of a process that counts.
    pub counter_pid: u32,
    /// Its count.
    pub count: u64,
}

impl GuestSession {
    /// Asks the guest.
    pub fn ask(vm: &mut Vm) -> anyhow::Result<Self> {
        vm.type_line("session")?;
        Self::read(vm)
    }

    /// Waits for the guest to print it.
    pub fn read(vm: &mut Vm) -> anyhow::Result<Self> {
        let boot_id = vm.wait_for_guest("bootid ")?;
        let token = vm.wait_for_guest("token ")?;
        let counter = vm.wait_for_guest("counter ")?;
        let numbers = counter
            .split_once(' ')
            .and_then(|(pid, count)| Some((pid.parse().ok()?, count.parse().ok()?)));
        let (counter_pid, count) =
            numbers.with_context(|| vm.failure(&format!("the counter says {counter:?}")))?;
        Ok(Self {
            boot_id,
            token,
            counter_pid,
            count,
        })
    }

    /// Has the guest hibernate, and waits until openvmm has ended.
    pub fn hibernate(vm: &mut Vm) -> anyhow::Result<()> {
        vm.type_line("hibernate")?;
        let ways = vm.wait_for_guest("hibernation ")?;
        anyhow::ensure!(
            ways.contains("[platform]"),
            "{}",
            vm.failure(&format!("the guest hibernates by {ways}"))
        );
        vm.wait_for_guest("hibernating")?;
        vm.expect_halt(OpenvmmExit::Hibernated, "hibernate")
    }

    /// Waits until the session is resumed after a start. Fails, with all output, if it is lost.
    pub fn resumed(&self, vm: &mut Vm) -> anyhow::Result<Self> {
        let (topic, _) = vm.wait_for_any(&["resumed", "not resumed", "ready"])?;
        anyhow::ensure!(topic == "resumed", "{}", vm.failure("the session is lost"));
        let session = Self::read(vm)?;
        anyhow::ensure!(
            session.continues(self),
            "{}",
            vm.failure(&format!("the session {session:?} is not {self:?}"))
        );
        Ok(session)
    }

    /// Whether this is `earlier`, gone on.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.boot_id == earlier.boot_id
            && self.token == earlier.token
            && self.counter_pid == earlier.counter_pid
            && self.count >= earlier.count
    }
}

/// The guest's clock, as seconds since 1970.
pub fn parse_clock(clock: &str) -> Option<(f64, u64)> {
    let (uptime, epoch) = clock.split_once(' ')?;
    Some((uptime.parse().ok()?, epoch.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_continues_only_itself() {
        let session = GuestSession {
            boot_id: "a".to_owned(),
            token: "b".to_owned(),
            counter_pid: 7,
            count: 100,
        };
        let later = GuestSession {
            count: 101,
            ..session.clone()
        };
        assert!(later.continues(&session) && !session.continues(&later));
        for other in [
            GuestSession {
                boot_id: "x".to_owned(),
                ..later.clone()
            },
            GuestSession {
                token: "x".to_owned(),
                ..later.clone()
            },
            GuestSession {
                counter_pid: 8,
                ..later.clone()
            },
        ] {
            assert!(!other.continues(&session));
        }
    }

    #[test]
    fn clocks_are_uptime_and_epoch() {
        assert_eq!(
            parse_clock("84.68 1795244086"),
            Some((84.68, 1_795_244_086))
        );
        assert_eq!(parse_clock("84.68"), None);
    }
}
