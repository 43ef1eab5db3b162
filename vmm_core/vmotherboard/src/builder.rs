use crate::AttachedDevice;
use crate::Chipset;
use crate::functions::PciFunctions;
use crate::route_table::RouteTable;
use crate::routes::RangeRoutes;
use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::DeviceWaker;
use chipset_device::FixedResources;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use chipset_device::SharedDevice;
use parking_lot::Mutex;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What a device's constructor is passed.
pub struct DeviceContext {
    /// Makes the chipset poll the device; connected once the constructor has returned. It has no effect while the
    /// device is stopped, and a device is polled when it starts.
    pub waker: DeviceWaker,
    /// Tells the chipset which addresses the device decodes in addition to its fixed resources. It can be used in
    /// the constructor.
    pub decoder: AddressDecoder,
    /// The configuration space of all functions of the chipset, for a device through which guests access it.
    /// It has no functions until the chipset is built.
    pub config_space: PciConfigSpace,
}

/// Collects the devices of a [`Chipset`].
#[derive(Default)]
pub struct ChipsetBuilder {
    devices: Vec<(AttachedDevice, FixedResources)>,
    ignored_ports: Vec<(RangeInclusive<u16>, usize)>,
    routes: Arc<RouteTable>,
    config_space: PciConfigSpace,
}

/// Why devices cannot be in one chipset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Two devices have the same name.
    #[error("there are two devices named `{name}`")]
    Name {
        /// The name.
        name: String,
    },
    /// A range of a device ends before it starts.
    #[error("`{device}` claims an empty range at {start:#x}")]
    EmptyRange {
        /// The device's name.
        device: String,
        /// The start of the range.
        start: u64,
    },
    /// Two ranges of I/O ports overlap.
    #[error("`{first}` and `{second}` both claim ports {:#x}-{:#x}", ports.start(), ports.end())]
    Ports {
        /// The device added first.
        first: String,
        /// The other device, or the same one if it overlaps itself.
        second: String,
        /// The ports that both claim.
        ports: RangeInclusive<u16>,
    },
    /// Two ranges of guest-physical addresses overlap.
    #[error("`{first}` and `{second}` both claim memory {:#x}-{:#x}", range.start(), range.end())]
    Mmio {
        /// The device added first.
        first: String,
        /// The other device, or the same one if it overlaps itself.
        second: String,
        /// The addresses that both claim.
        range: RangeInclusive<u64>,
    },
    /// Two devices claim the same PCI function.
    #[error("`{first}` and `{second}` both claim PCI function {function}")]
    Pci {
        /// The device added first.
        first: String,
        /// The other device.
        second: String,
        /// The function.
        function: PciAddress,
    },
}

/// All conflicts because of which a chipset cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the devices of the chipset conflict: {}", list(conflicts))]
pub struct ChipsetError {
    /// At least one.
    pub conflicts: Vec<Conflict>,
}

fn list(conflicts: &[Conflict]) -> String {
    let texts: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl ChipsetBuilder {
    /// Adds the device that `construct` returns. Its name is also the key of its saved state. Conflicts with other
    /// devices are reported by [`ChipsetBuilder::build`].
    pub fn add<D: ChipsetDevice>(
        &mut self,
        name: impl Into<Arc<str>>,
        construct: impl FnOnce(&DeviceContext) -> D,
    ) -> Arc<Mutex<D>> {
        let context = self.context();
        let device = Arc::new(Mutex::new(construct(&context)));
        self.insert(name.into(), &context, device.clone());
        device
    }

    /// As [`ChipsetBuilder::add`], for a device of any type and a constructor that can fail. On an error nothing is added.
    pub fn try_add<E>(
        &mut self,
        name: impl Into<Arc<str>>,
        construct: impl FnOnce(&DeviceContext) -> Result<SharedDevice, E>,
    ) -> Result<(), E> {
        let context = self.context();
        let device = construct(&context)?;
        self.insert(name.into(), &context, device);
        Ok(())
    }

    fn context(&self) -> DeviceContext {
        let (index, routes) = (self.devices.len(), self.routes.clone());
        DeviceContext {
            waker: DeviceWaker::default(),
            decoder: AddressDecoder::new(move |ranges| routes.set_decoded(index, ranges)),
            config_space: self.config_space.clone(),
        }
    }

    fn insert(&mut self, name: Arc<str>, context: &DeviceContext, device: SharedDevice) {
        let resources = device.lock().fixed_resources();
        let handle = AttachedDevice::new(name, device);
        context.waker.connect(handle.poller());
        self.devices.push((handle, resources));
    }

    /// Declares ports of hardware that is known to be absent: unclaimed accesses to them are not logged.
    pub fn ignore_ports(&mut self, ports: RangeInclusive<u16>) {
        self.ignored_ports.push((ports, 0));
    }

    /// Builds the chipset.
    pub fn build(self) -> Result<Chipset, ChipsetError> {
        let conflicts = find_conflicts(&self.devices);
        if !conflicts.is_empty() {
            return Err(ChipsetError { conflicts });
        }
        let function = |(handle, resources): &(AttachedDevice, FixedResources)| {
            let address = resources.pci?;
            Some((address, handle.clone()))
        };
        let functions = self.devices.iter().filter_map(function).collect();
        let functions = Arc::new(PciFunctions::new(functions));
        let access = Arc::downgrade(&functions);
        self.config_space.connect(access);
        let (devices, resources): (Vec<_>, Vec<_>) = self.devices.into_iter().unzip();
        self.routes.connect(resources);
        Ok(Chipset::new(
            devices.into(),
            self.routes,
            functions,
            RangeRoutes::new(self.ignored_ports),
        ))
    }
}

fn find_conflicts(devices: &[(AttachedDevice, FixedResources)]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut ports: Vec<(&str, &RangeInclusive<u16>)> = Vec::new();
    let mut mmio: Vec<(&str, &RangeInclusive<u64>)> = Vec::new();
    let mut pci: Vec<(&str, PciAddress)> = Vec::new();
    for (i, (handle, resources)) in devices.iter().enumerate() {
        let name = handle.name();
        if devices[..i].iter().any(|(other, _)| other.name() == name) {
            conflicts.push(Conflict::Name { name: name.into() });
        }
        for range in &resources.ports {
            if range.is_empty() {
                conflicts.push(Conflict::EmptyRange {
                    device: name.into(),
                    start: (*range.start()).into(),
                });
            }
            for (first, ports) in overlaps(&ports, range) {
                let (first, second) = (first.into(), name.into());
                conflicts.push(Conflict::Ports {
                    first,
                    second,
                    ports,
                });
            }
            ports.push((name, range));
        }
        for range in &resources.mmio {
            if range.is_empty() {
                conflicts.push(Conflict::EmptyRange {
                    device: name.into(),
                    start: *range.start(),
                });
            }
            for (first, range) in overlaps(&mmio, range) {
                let (first, second) = (first.into(), name.into());
                conflicts.push(Conflict::Mmio {
                    first,
                    second,
                    range,
                });
            }
            mmio.push((name, range));
        }
        if let Some(function) = resources.pci {
            let same = pci.iter().filter(|(_, other)| *other == function);
            for (first, _) in same {
                conflicts.push(Conflict::Pci {
                    first: (*first).into(),
                    second: name.into(),
                    function,
                });
            }
            pci.push((name, function));
        }
    }
    conflicts
}

/// The parts of `range` that devices have claimed, with the names of these devices.
fn overlaps<'a, A: Copy + Ord>(
    claimed: &[(&'a str, &RangeInclusive<A>)],
    range: &RangeInclusive<A>,
) -> Vec<(&'a str, RangeInclusive<A>)> {
    claimed
        .iter()
        .map(|(name, other)| {
            let start = *range.start().max(other.start());
            let end = *range.end().min(other.end());
            (*name, start..=end)
        })
        .filter(|(_, overlap)| !overlap.is_empty())
        .collect()
}
