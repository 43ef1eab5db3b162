//! VPs: carrying out scripts.

use crate::event::Event;
use crate::state::Shared;
use crate::state::State;
use crate::state::VpData;
use crate::step::Step;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use parking_lot::MutexGuard;
use std::collections::VecDeque;
use std::sync::Arc;
use virt::Error;
use virt::IoBus;
use virt::RunError;
use virt::Vp;
use virt::VpBinder;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;
use virt::x86::Activity;
use virt::x86::Registers;
use virt::x86::VpState;
use virt::x86::reset::LAPIC_SIZE;
use virt::x86::reset::XSAVE_MIN_SIZE;

#[derive(Clone)]
pub(crate) struct FakeVp {
    pub(crate) shared: Arc<Shared>,
    pub(crate) partition: usize,
    pub(crate) index: VpIndex,
}

/// What the VP does next.
enum Next {
    Step(Step),
    Stop,
}

impl FakeVp {
    fn data<'a>(&self, state: &'a mut State) -> &'a mut VpData {
        &mut state.partitions[self.partition].vps[self.index.0 as usize]
    }

    /// Records `event`, then acts on the VP.
    fn act<R>(&self, event: Event, act: impl FnOnce(&mut VpData) -> R) -> R {
        let mut state = self.shared.state.lock();
        state.events.push(event);
        self.shared.changed.notify_all();
        act(self.data(&mut state))
    }

    /// Waits for a step or a kick. A kick comes first.
    fn next(&self) -> Next {
        let mut state = self.shared.state.lock();
        loop {
            if self.taken_kick(&mut state) {
                return Next::Stop;
            }
            let script = state.scripts.get_mut(&self.index.0);
            match script.and_then(VecDeque::pop_front) {
                Some(Step::Halt) => {
                    self.data(&mut state).state.activity = Activity::Halted;
                    while !self.taken_kick(&mut state) {
                        self.shared.changed.wait(&mut state);
                    }
                    return Next::Stop;
                }
                Some(step) => {
                    // Whatever it waited for, it executes now.
                    self.data(&mut state).state.activity = Activity::Running;
                    return Next::Step(step);
                }
                None => self.shared.changed.wait(&mut state),
            }
        }
    }

    fn taken_kick(&self, state: &mut MutexGuard<'_, State>) -> bool {
        std::mem::take(&mut self.data(state).kicked)
    }

    fn carry_out(&self, step: Step, io: &dyn IoBus) -> Result<Option<VpStop>, RunError> {
        let vp = self.index.0;
        let event = match step {
            Step::ReadPort { port, size } => {
                let mut data = vec![0; size];
                io.read_port(port, &mut data);
                Event::PortRead { vp, port, data }
            }
            Step::WritePort { port, data } => {
                if !self.rings(DoorbellAddress::Port(port), &data) {
                    io.write_port(port, &data);
                }
                Event::PortWritten { vp, port, data }
            }
            Step::ReadMemory { gpa, size } => {
                let mut data = vec![0; size];
                let mut state = self.shared.state.lock();
                let read = state.partitions[self.partition]
                    .mappings
                    .read(gpa, &mut data);
                drop(state);
                if !read {
                    io.read_mmio(gpa, &mut data);
                }
                Event::MemoryRead { vp, gpa, data }
            }
            Step::WriteMemory { gpa, data } => {
                let mut state = self.shared.state.lock();
                let written = state.partitions[self.partition].mappings.write(gpa, &data);
                drop(state);
                if !written && !self.rings(DoorbellAddress::Gpa(gpa), &data) {
                    io.write_mmio(gpa, &data);
                }
                Event::MemoryWritten { vp, gpa, data }
            }
            Step::ReadMsr { index } => {
                let own = self.own_msr(index, |value| *value);
                let value = own.or_else(|| io.read_msr(self.index, index));
                Event::MsrRead { vp, index, value }
            }
            Step::WriteMsr { index, value } => {
                let own = self.own_msr(index, |own| *own = value);
                let written = own.or_else(|| io.write_msr(self.index, index, value));
                Event::MsrWritten {
                    vp,
                    index,
                    value,
                    accepted: written.is_some(),
                }
            }
            Step::EndOfInterrupt { vector } => {
                io.end_of_interrupt(vector);
                Event::InterruptEnded { vp, vector }
            }
            Step::Halt => return Ok(None),
            Step::TripleFault => return Ok(Some(VpStop::TripleFault)),
            Step::Fail(error) => return Err(error),
        };
        self.shared.record(event);
        Ok(None)
    }

    /// Acts on an MSR that the processor has and that is not intercepted.
    fn own_msr<R>(&self, index: u32, act: impl FnOnce(&mut u64) -> R) -> Option<R> {
        let mut state = self.shared.state.lock();
        let partition = &state.partitions[self.partition];
        if partition.processor.msr_owner(index).is_some() {
            return None;
        }
        let msrs = &mut self.data(&mut state).state.msrs;
        let msr = msrs.iter_mut().find(|msr| msr.index == index)?;
        Some(act(&mut msr.value))
    }

    /// Whether the write rang a doorbell, and so does not reach the bus.
    fn rings(&self, address: DoorbellAddress, data: &[u8]) -> bool {
        let matches = |matching| match matching {
            DoorbellMatch::Any => true,
            DoorbellMatch::U16(value) => data == value.to_le_bytes(),
            DoorbellMatch::U32(value) => data == value.to_le_bytes(),
        };
        let mut state = self.shared.state.lock();
        let doorbells = &state.partitions[self.partition].doorbells;
        let Some(doorbell) = doorbells
            .iter()
            .find(|d| d.address == address && matches(d.matching))
        else {
            return false;
        };
        // A full counter is an event too.
        let _ = rustix::io::write(&doorbell.event, &1u64.to_ne_bytes());
        let vp = self.index.0;
        state.events.push(Event::RingDoorbell { vp, address });
        true
    }

    fn check(&self, state: &VpState) -> Result<(), Error> {
        let invalid = |what: &str| {
            let text = format!("{}: {what}", self.index);
            Err(Error::InvalidRequest(text))
        };
        if state.lapic.len() != LAPIC_SIZE {
            return invalid("the saved local APIC has the wrong size");
        }
        if state.xsave.len() < XSAVE_MIN_SIZE {
            return invalid("the saved XSAVE area is too short");
        }
        Ok(())
    }
}

impl VpBinder for FakeVp {
    fn index(&self) -> VpIndex {
        self.index
    }

    fn bind(self: Box<Self>) -> Result<Box<dyn Vp>, Error> {
        self.shared.record(Event::Bind { vp: self.index.0 });
        Ok(self)
    }
}

impl VpKick for FakeVp {
    fn kick(&self) {
        self.data(&mut self.shared.state.lock()).kicked = true;
        self.shared.changed.notify_all();
    }
}

impl Vp for FakeVp {
    fn index(&self) -> VpIndex {
        self.index
    }

    fn kicker(&self) -> Arc<dyn VpKick> {
        Arc::new(self.clone())
    }

    fn run(&mut self, io: &dyn IoBus) -> Result<VpStop, RunError> {
        let vp = self.index.0;
        self.act(Event::Enter { vp }, |data| data.running = true);
        let result = loop {
            match self.next() {
                Next::Stop => break Ok(VpStop::Requested),
                Next::Step(step) => match self.carry_out(step, io) {
                    Ok(None) => {}
                    Ok(Some(stop)) => break Ok(stop),
                    Err(error) => break Err(error),
                },
            }
        };
        let stop = result.as_ref().ok().copied();
        self.act(Event::Leave { vp, stop }, |data| data.running = false);
        result
    }

    fn registers(&mut self) -> Result<Registers, Error> {
        let mut state = self.shared.state.lock();
        Ok(self.data(&mut state).state.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), Error> {
        let vp = self.index.0;
        self.act(Event::SetRegisters { vp }, |data| {
            data.state.registers = *registers;
        });
        Ok(())
    }

    fn set_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), Error> {
        let event = Event::SetMsrs {
            vp: self.index.0,
            msrs: msrs.to_vec(),
        };
        self.act(event, |data| {
            for &(index, value) in msrs {
                let found = data.state.msrs.iter_mut().find(|msr| msr.index == index);
                let Some(msr) = found else {
                    let text = format!("the fake processor has no MSR {index:#x}");
                    return Err(Error::InvalidRequest(text));
                };
                msr.value = value;
            }
            Ok(())
        })
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.act(Event::ResetVp { vp: self.index.0 }, |data| {
            // The CPUID table stays, as does the counter's frequency.
            let cpuid = std::mem::take(&mut data.state.cpuid);
            let khz = data.state.tsc.khz;
            data.state = data.power_on.clone();
            data.state.cpuid = cpuid;
            data.state.tsc.khz = khz;
        });
        Ok(())
    }

    fn save(&mut self) -> Result<VpState, Error> {
        let vp = self.index.0;
        Ok(self.act(Event::SaveVp { vp }, |data| data.state.clone()))
    }

    fn restore(&mut self, state: &VpState) -> Result<(), Error> {
        self.check(state)?;
        let vp = self.index.0;
        self.act(Event::RestoreVp { vp }, |data| data.state = state.clone());
        Ok(())
    }
}
