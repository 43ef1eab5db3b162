//! Whether a queue's thread preempts the VP that woke it.
#![allow(
    unsafe_code,
    reason = "no safe library sets a thread's scheduling policy"
)]

use std::io;

/// After this many consecutive wakeups with one chain each, the driver is assumed to wait for each chain.
const SINGLES: u32 = 16;

/// Whether the calling thread preempts what runs on its processor when it wakes up.
///
/// On a host with an idle processor this makes no difference. Without one, a thread that mostly waits takes the
/// processor from the VP as soon as the VP notifies it. This is best if the driver then waits for this one chain, and
/// worst if it was about to make more chains available: each costs an exit, two context switches and an interrupt. So
/// once a wakeup finds several chains, the thread no longer preempts, until chains come one at a time again.
///
/// Not to preempt is `SCHED_BATCH` (sched(7)): a thread that wakes up waits until the processor is idle or its turn
/// comes. A thread whose policy is not `SCHED_OTHER` to begin with was configured by the user and is left alone.
#[derive(Debug)]
pub struct WakeupPolicy {
    policy: Policy,
    singles: u32,
    is_managed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Preempt,
    Batch,
}

impl Policy {
    fn number(self) -> i32 {
        match self {
            Self::Preempt => libc::SCHED_OTHER,
            Self::Batch => libc::SCHED_BATCH,
        }
    }
}

impl WakeupPolicy {
    /// The policy of the calling thread, which preempts at first.
    pub fn of_this_thread() -> Self {
        Self {
            policy: Policy::Preempt,
            singles: 0,
            is_managed: current_policy() == libc::SCHED_OTHER,
        }
    }

    /// The thread is about to wait, and has taken `chains` chains since it woke up.
    ///
    /// Call this on the thread that created `self`.
    pub fn about_to_wait(&mut self, chains: usize) {
        let Some(policy) = self.change(chains) else {
            return;
        };
        if !self.is_managed {
            return;
        }
        if let Err(error) = set_policy(policy.number()) {
            // Sandboxes forbid this. It only costs speed.
            tracing::debug!(%error, ?policy, "failed to set a thread's scheduling policy");
            self.is_managed = false;
        }
    }

    /// Records a wakeup that found `chains` chains. Returns the new policy if it changes.
    fn change(&mut self, chains: usize) -> Option<Policy> {
        let policy = match chains {
            // Woken up by something other than chains.
            0 => return None,
            1 => {
                self.singles = self.singles.saturating_add(1);
                if self.singles < SINGLES {
                    return None;
                }
                Policy::Preempt
            }
            _ => {
                self.singles = 0;
                Policy::Batch
            }
        };
        if policy == self.policy {
            return None;
        }
        self.policy = policy;
        Some(policy)
    }
}

/// The calling thread's scheduling policy.
fn current_policy() -> i32 {
    // SAFETY: takes no memory.
    unsafe { libc::sched_getscheduler(0) }
}

fn set_policy(policy: i32) -> io::Result<()> {
    // SAFETY: an integer, and on some C libraries more of them; 0 is valid for all.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameters` is a complete structure that is only read.
    match unsafe { libc::sched_setscheduler(0, policy, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_chains_switch_to_batch_and_single_ones_do_not() {
        let mut preemption = WakeupPolicy::of_this_thread();
        for _ in 0..100 {
            assert_eq!(preemption.change(1), None);
            assert_eq!(preemption.change(0), None);
        }
        assert_eq!(preemption.change(2), Some(Policy::Batch));
        assert_eq!(preemption.change(7), None);
    }

    #[test]
    fn only_consecutive_single_chains_switch_back() {
        let mut preemption = WakeupPolicy::of_this_thread();
        assert_eq!(preemption.change(32), Some(Policy::Batch));
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
        assert_eq!(preemption.change(1), Some(Policy::Preempt));
    }

    #[test]
    fn the_kernel_applies_the_policy() {
        std::thread::spawn(|| {
            assert_eq!(current_policy(), libc::SCHED_OTHER);
            let mut preemption = WakeupPolicy::of_this_thread();
            preemption.about_to_wait(2);
            assert_eq!(current_policy(), libc::SCHED_BATCH);
            // A thread that starts with another policy is left alone.
            WakeupPolicy::of_this_thread().about_to_wait(2);
            assert_eq!(current_policy(), libc::SCHED_BATCH);
            for _ in 0..SINGLES {
                preemption.about_to_wait(1);
            }
            assert_eq!(current_policy(), libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
    }
}
