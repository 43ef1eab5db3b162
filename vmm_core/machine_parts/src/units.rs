//! The parts of a machine as state units.

use crate::vps::VpSet;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use serde_json::Value;
use serde_json::json;
use state_unit::ResetError;
use state_unit::StateUnit;
use std::error::Error;
use std::sync::Arc;
use virt::Partition;
use virt::Vp;
use virt::x86::CpuidEntry;
use virt::x86::PartitionState;
use virt::x86::VpState;
use vmtime::VmClock;
use vmtime::VmInstant;

/// Guest time. It goes on at a reset; the deadlines of a device go with its own reset.
pub struct ClockUnit(pub VmClock);

impl StateUnit for ClockUnit {
    fn start(&mut self) {
        self.0.start();
    }

    fn stop(&mut self) {
        self.0.stop();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.0.now().as_nanos()))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        self.0.set(VmInstant::from_nanos(state.decode()?));
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({"now_ns": self.0.now().as_nanos(), "running": self.0.is_running()})
    }
}

/// What the partition's VPs share: interrupt controllers, the paravirtual clock.
pub struct PartitionUnit(pub Arc<dyn Partition>);

impl StateUnit for PartitionUnit {
    fn start(&mut self) {
        if let Err(error) = self.0.start_clock() {
            tracing::error!(
                error = &error as &dyn Error,
                "failed to start the guest's clock"
            );
        }
    }

    fn stop(&mut self) {
        if let Err(error) = self.0.stop_clock() {
            tracing::error!(
                error = &error as &dyn Error,
                "failed to stop the guest's clock"
            );
        }
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        self.0.reset().map_err(|error| ResetError(error.into()))
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        let state = self
            .0
            .save()
            .map_err(|error| SaveError::Failed(error.into()))?;
        Ok(SavedState::encode(&state))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: PartitionState = state.decode()?;
        self.0
            .restore(&state)
            .map_err(|error| RestoreError::Failed(error.into()))
    }

    fn inspect(&self) -> Value {
        self.0.inspect()
    }
}

/// The VPs.
pub struct VpsUnit(pub VpSet);

impl VpsUnit {
    /// Calls `action` on the thread of each VP. Fails if it fails for any.
    fn for_each<R: Send + 'static>(
        &self,
        action: impl Fn(&mut dyn Vp) -> Result<R, virt::Error> + Send + Sync + 'static,
    ) -> Result<Vec<R>, Box<dyn Error + Send + Sync>> {
        let results = self.0.for_each(action)?;
        Ok(results.into_iter().collect::<Result<_, _>>()?)
    }
}

/// The saved state of all VPs, in index order.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct SavedVps {
    #[n(0)]
    vps: Vec<VpState>,
}

/// What the saved state of a [`VpsUnit`] says of the boot processor.
pub fn saved_processor(state: &SavedState) -> Result<Option<SavedProcessor>, RestoreError> {
    let SavedVps { vps } = state.decode()?;
    Ok(vps.into_iter().next().map(|vp| SavedProcessor {
        cpuid: vp.cpuid,
        tsc_khz: vp.tsc.khz,
    }))
}

/// What a saved machine's guest was told of its boot processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedProcessor {
    /// Its CPUID table.
    pub cpuid: Vec<CpuidEntry>,
    /// The frequency of its time stamp counter in kHz.
    pub tsc_khz: u32,
}

impl StateUnit for VpsUnit {
    fn start(&mut self) {
        self.0.start();
    }

    fn stop(&mut self) {
        self.0.stop();
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        self.for_each(|vp| vp.reset()).map_err(ResetError)?;
        Ok(())
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        let vps = self.for_each(|vp| vp.save()).map_err(SaveError::Failed)?;
        Ok(SavedState::encode(&SavedVps { vps }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let SavedVps { vps } = state.decode()?;
        if vps.len() != self.0.count() {
            return Err(RestoreError::Invalid(format!(
                "it has {} VPs, and the VM {}",
                vps.len(),
                self.0.count()
            )));
        }
        let vps = Arc::new(vps);
        self.for_each(move |vp| vp.restore(&vps[vp.index().0 as usize]))
            .map_err(RestoreError::Failed)?;
        Ok(())
    }

    fn inspect(&self) -> Value {
        let registers = match self.0.interrupt_each(|vp| vp.registers()) {
            Ok(registers) => registers,
            Err(error) => return json!({"error": error.to_string()}),
        };
        let vps = registers.into_iter().enumerate().map(|(n, registers)| {
            let value = match registers {
                Ok(r) => json!({
                    "rip": format!("{:#x}", r.rip),
                    "rsp": format!("{:#x}", r.rsp),
                    "rflags": format!("{:#x}", r.rflags),
                    "cr0": format!("{:#x}", r.cr0),
                    "cr3": format!("{:#x}", r.cr3),
                    "cr4": format!("{:#x}", r.cr4),
                    "efer": format!("{:#x}", r.efer),
                    "cs": format!("{:#x}", r.cs.selector),
                }),
                Err(error) => json!({"error": error.to_string()}),
            };
            (n.to_string(), value)
        });
        Value::Object(vps.collect())
    }
}
