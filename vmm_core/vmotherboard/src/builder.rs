use crate::Chipset;
use crate::DeviceHandle;
use crate::functions::FunctionAccess;
use crate::functions::PciFunctions;
use crate::route_table::RouteTable;
use crate::routes::RangeRoutes;
use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::Claims;
use chipset_device::DeviceWaker;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use chipset_device::SharedDevice;
use parking_lot::Mutex;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What a device's constructor is given.
#[derive(Debug)]
pub struct DeviceContext {
    waker: DeviceWaker,
    decoder: AddressDecoder,
    config_space: PciConfigSpace,
}

impl DeviceContext {
    /// Makes the chipset poll the device; connected once the constructor has returned. Wake-ups of a
    /// stopped device have no effect, and a device is polled when it is started.
    pub fn waker(&self) -> DeviceWaker {
        self.waker.clone()
    }

    /// Tells the chipset which addresses the device answers beside its claims. It works in the constructor
    /// already.
    pub fn decoder(&self) -> AddressDecoder {
        self.decoder.clone()
    }

    /// The configuration space of all functions of the chipset, for a device through which guests reach it.
    /// Without functions until the chipset is built.
    pub fn pci_config_space(&self) -> PciConfigSpace {
        self.config_space.clone()
    }
}

/// Collects the devices of a [`Chipset`].
#[derive(Debug, Default)]
pub struct ChipsetBuilder {
    devices: Vec<(DeviceHandle, Claims)>,
    ignored_ports: Vec<RangeInclusive<u16>>,
    routes: Arc<RouteTable>,
    config_space: PciConfigSpace,
}

/// Why two devices cannot be in one chipset, or one cannot at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Two devices have one name.
    #[error("there are two devices {name}")]
    Name {
        /// The name.
        name: String,
    },
    /// A device claims a range that ends before it begins.
    #[error("{device} claims an empty range at {start:#x}")]
    EmptyRange {
        /// The device's name.
        device: String,
        /// Where the range begins.
        start: u64,
    },
    /// Two claims of I/O ports overlap.
    #[error("{first} and {second} both claim ports {:#x}-{:#x}", ports.start(), ports.end())]
    Ports {
        /// The device added first.
        first: String,
        /// The other device; the same name if a device overlaps itself.
        second: String,
        /// What both claim.
        ports: RangeInclusive<u16>,
    },
    /// Two claims of guest-physical addresses overlap.
    #[error("{first} and {second} both claim memory {:#x}-{:#x}", range.start(), range.end())]
    Mmio {
        /// The device added first.
        first: String,
        /// The other device; the same name if a device overlaps itself.
        second: String,
        /// What both claim.
        range: RangeInclusive<u64>,
    },
    /// Two devices claim one PCI function.
    #[error("{first} and {second} both claim PCI function {function}")]
    Pci {
        /// The device added first.
        first: String,
        /// The other device.
        second: String,
        /// The function.
        function: PciAddress,
    },
}

/// Why a chipset cannot be built: all conflicts there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the devices do not fit together: {}", list(conflicts))]
pub struct BuildError {
    /// At least one.
    pub conflicts: Vec<Conflict>,
}

fn list(conflicts: &[Conflict]) -> String {
    let texts: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl ChipsetBuilder {
    /// A chipset without devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the device that `construct` makes, under a name that also keys its saved state. Whether it
    /// conflicts with another device shows when the chipset is built.
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

    /// As [`ChipsetBuilder::add`], for a device of any type, and where making it can fail. Then nothing was added.
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
            waker: DeviceWaker::new(),
            decoder: AddressDecoder::new(move |decodes| routes.set_decodes(index, decodes)),
            config_space: self.config_space.clone(),
        }
    }

    fn insert(&mut self, name: Arc<str>, context: &DeviceContext, device: SharedDevice) {
        let claims = device.lock().claims();
        let handle = DeviceHandle::new(name, device);
        context.waker.connect(handle.poller());
        self.devices.push((handle, claims));
    }

    /// Declares ports of hardware known to be absent: accesses that no device claims are not logged.
    pub fn ignore_ports(&mut self, ports: RangeInclusive<u16>) {
        self.ignored_ports.push(ports);
    }

    /// Builds the chipset.
    pub fn build(self) -> Result<Chipset, BuildError> {
        let conflicts = find_conflicts(&self.devices);
        if !conflicts.is_empty() {
            return Err(BuildError { conflicts });
        }
        let function = |(handle, claims): &(DeviceHandle, Claims)| {
            let address = claims.pci?;
            Some((address, handle.clone()))
        };
        let functions = self.devices.iter().filter_map(function).collect();
        let functions = Arc::new(PciFunctions::new(functions));
        self.config_space
            .connect(FunctionAccess(Arc::downgrade(&functions)));
        let (devices, claims): (Vec<_>, Vec<_>) = self.devices.into_iter().unzip();
        self.routes.connect(claims);
        Ok(Chipset::new(
            devices.into(),
            self.routes,
            functions,
            RangeRoutes::new(self.ignored_ports.into_iter().map(|ports| (ports, 0))),
        ))
    }
}

fn find_conflicts(devices: &[(DeviceHandle, Claims)]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut ports: Vec<(&str, &RangeInclusive<u16>)> = Vec::new();
    let mut mmio: Vec<(&str, &RangeInclusive<u64>)> = Vec::new();
    let mut pci: Vec<(&str, PciAddress)> = Vec::new();
    for (i, (handle, claims)) in devices.iter().enumerate() {
        let name = handle.name();
        if devices[..i].iter().any(|(other, _)| other.name() == name) {
            conflicts.push(Conflict::Name { name: name.into() });
        }
        for range in &claims.ports {
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
        for range in &claims.mmio {
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
        if let Some(function) = claims.pci {
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

/// The parts of `range` that are claimed already, with the names of those that claim them.
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
