//! What the clock keeps while the machine is off, as on hardware with a battery.

use super::CMOS_SIZE;
use std::error::Error;
use std::sync::Arc;

/// What is kept while the machine is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptClock {
    /// The guest's time minus the host's, in units of 100 ns.
    pub skew: i64,
    /// The CMOS RAM. The bytes of the time and those that tell how much memory there is are not used.
    pub cmos: [u8; CMOS_SIZE],
}

type Keep = dyn Fn(&KeptClock) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync;

/// Keeps the clock's state across starts of the VM: a service, for a machine that has a place for it.
#[derive(Clone)]
pub struct RtcBattery {
    /// What the VM's last session left, if it left anything.
    pub kept: Option<KeptClock>,
    /// Makes a state durable.
    keep: Arc<Keep>,
}

impl RtcBattery {
    /// A battery that has `kept`. `keep` makes a changed state durable; it is called while the machine is stopped, and
    /// may block.
    pub fn new(
        kept: Option<KeptClock>,
        keep: impl Fn(&KeptClock) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        let keep = Arc::new(keep);
        Self { kept, keep }
    }

    /// Makes `state` durable, unless it is already.
    pub(super) fn keep(&mut self, state: KeptClock) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.kept.as_ref() != Some(&state) {
            (self.keep)(&state)?;
            self.kept = Some(state);
        }
        Ok(())
    }
}
