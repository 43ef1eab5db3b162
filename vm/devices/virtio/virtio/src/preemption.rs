//! Whether a queue's thread interrupts the VP that woke it.
#![allow(
    unsafe_code,
    reason = "no safe library sets the scheduling policy of a thread"
)]

use std::io;

/// After so many wakeups in a row that found one chain each, the driver is taken to wait for each of them.
const SINGLES: u32 = 16;

/// How the calling thread treats what runs on the processor on which it wakes up.
///
/// On a host with a free processor this makes no difference. If there is none, a thread that mostly waits takes the
/// processor from the VP as soon as that notifies it. This is best if the driver then waits for this one chain, and
/// worst if it was about to make more of them available: each costs an exit, two switches of threads and an
/// interrupt of its own. So once a wakeup finds several chains, the thread wakes up politely, until they come alone again.
///
/// Polite is `SCHED_BATCH` (sched(7)): a thread that wakes up waits until the processor is free or due to it. A
/// thread whose policy is not `SCHED_OTHER` to begin with, because somebody chose so, is left alone.
#[derive(Debug)]
pub struct Preemption {
    manner: Manner,
    singles: u32,
    is_managed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Preempting,
    Polite,
}

impl Manner {
    fn policy(self) -> i32 {
        match self {
            Self::Preempting => libc::SCHED_OTHER,
            Self::Polite => libc::SCHED_BATCH,
        }
    }
}

impl Preemption {
    /// For the calling thread, which preempts.
    pub fn of_this_thread() -> Self {
        Self {
            manner: Manner::Preempting,
            singles: 0,
            is_managed: policy() == libc::SCHED_OTHER,
        }
    }

    /// The thread is about to wait, and took `chains` chains since it woke up.
    ///
    /// To be called on the thread that this was made on.
    pub fn about_to_wait(&mut self, chains: usize) {
        let Some(manner) = self.change(chains) else {
            return;
        };
        if !self.is_managed {
            return;
        }
        if let Err(error) = set_policy(manner.policy()) {
            // Sandboxes forbid this. It costs speed and nothing else.
            tracing::debug!(%error, ?manner, "failed to set a thread's scheduling policy");
            self.is_managed = false;
        }
    }

    /// Takes note of a wakeup that found `chains` chains, and says to what the manner changes.
    fn change(&mut self, chains: usize) -> Option<Manner> {
        let manner = match (self.manner, chains) {
            // For something else than chains.
            (_, 0) => return None,
            (_, 1) => {
                self.singles = self.singles.saturating_add(1);
                if self.singles < SINGLES {
                    return None;
                }
                Manner::Preempting
            }
            _ => {
                self.singles = 0;
                Manner::Polite
            }
        };
        if manner == self.manner {
            return None;
        }
        self.manner = manner;
        Some(manner)
    }
}

/// The calling thread's scheduling policy.
fn policy() -> i32 {
    // SAFETY: takes no memory.
    unsafe { libc::sched_getscheduler(0) }
}

fn set_policy(policy: i32) -> io::Result<()> {
    // SAFETY: an integer, for which 0 is valid. There may be padding or more fields, which are 0 then.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameters` is a complete structure, and only read.
    match unsafe { libc::sched_setscheduler(0, policy, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_chains_make_it_polite_and_single_ones_do_not() {
        let mut preemption = Preemption::of_this_thread();
        for _ in 0..100 {
            assert_eq!(preemption.change(1), None);
            assert_eq!(preemption.change(0), None);
        }
        assert_eq!(preemption.change(2), Some(Manner::Polite));
        assert_eq!(preemption.change(7), None);
    }

    #[test]
    fn only_a_row_of_single_chains_ends_it() {
        let mut preemption = Preemption::of_this_thread();
        assert_eq!(preemption.change(32), Some(Manner::Polite));
        for _ in 0..3 {
            for _ in 1..SINGLES {
                assert_eq!(preemption.change(1), None);
                assert_eq!(preemption.change(0), None);
            }
            assert_eq!(preemption.change(2), None);
        }
        for _ in 1..SINGLES {
            assert_eq!(preemption.change(1), None);
        }
        assert_eq!(preemption.change(1), Some(Manner::Preempting));
    }

    #[test]
    fn the_kernel_knows() {
        std::thread::spawn(|| {
            assert_eq!(policy(), libc::SCHED_OTHER);
            let mut preemption = Preemption::of_this_thread();
            preemption.about_to_wait(2);
            assert_eq!(policy(), libc::SCHED_BATCH);
            // Somebody else's choice from here on.
            Preemption::of_this_thread().about_to_wait(2);
            assert_eq!(policy(), libc::SCHED_BATCH);
            for _ in 0..SINGLES {
                preemption.about_to_wait(1);
            }
            assert_eq!(policy(), libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
    }
}
