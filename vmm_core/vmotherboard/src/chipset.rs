use crate::AttachedDevice;
use crate::device_errors::DeviceErrors;
use crate::functions::PciFunctions;
use crate::route_table::RouteTable;
use crate::routes::RangeRoutes;
use log_limit::LogLimit;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Routes accesses of the guest to the devices of a machine. Shared by all VP threads.
///
/// No access fails: a read that no device claims returns all ones, as on a bus that nothing drives, and a
/// write is dropped. Both are counted, and logged at a limited rate.
pub struct Chipset {
    devices: Box<[AttachedDevice]>,
    routes: Arc<RouteTable>,
    /// Devices refer to it weakly, so the chipset keeps it alive.
    _functions: Arc<PciFunctions>,
    /// Ports of absent hardware, whose unclaimed accesses are not logged.
    ignored_ports: RangeRoutes<u16>,
    ports: Unclaimed,
    mmio: Unclaimed,
    errors: DeviceErrors,
}

#[derive(Default)]
struct Unclaimed {
    reads: AtomicU64,
    writes: AtomicU64,
    limit: LogLimit,
}

/// The number of accesses that no device claimed since the chipset was built.
#[derive(Debug, Copy, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UnclaimedCounts {
    /// Reads of I/O ports.
    pub port_reads: u64,
    /// Writes of I/O ports.
    pub port_writes: u64,
    /// Reads of memory.
    pub mmio_reads: u64,
    /// Writes of memory.
    pub mmio_writes: u64,
}

impl Chipset {
    pub(crate) fn new(
        devices: Box<[AttachedDevice]>,
        routes: Arc<RouteTable>,
        functions: Arc<PciFunctions>,
        ignored_ports: RangeRoutes<u16>,
    ) -> Self {
        Self {
            devices,
            routes,
            _functions: functions,
            ignored_ports,
            ports: Unclaimed::default(),
            mmio: Unclaimed::default(),
            errors: DeviceErrors::default(),
        }
    }

    /// The devices, with their names, in the order they were added.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = (&str, AttachedDevice)> {
        self.devices.iter().map(|d| (d.name(), d.clone()))
    }

    /// Reads `data.len()` bytes (1, 2 or 4) from I/O port `port`.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        let Some(device) = self.device(self.routes.port(port)) else {
            data.fill(0xff);
            let quiet = self.ignored_ports.find(port).is_some();
            return self
                .ports
                .count_read("port", port.into(), data.len(), quiet);
        };
        let result = device.device().lock().read_port(port, data);
        if let Err(error) = result {
            data.fill(0xff);
            self.errors
                .log(device, "port read", port.into(), data.len(), error);
        }
    }

    /// Writes `data` (1, 2 or 4 bytes) to I/O port `port`.
    pub fn write_port(&self, port: u16, data: &[u8]) {
        let Some(device) = self.device(self.routes.port(port)) else {
            let quiet = self.ignored_ports.find(port).is_some();
            return self.ports.count_write("port", port.into(), data, quiet);
        };
        let result = device.device().lock().write_port(port, data);
        if let Err(error) = result {
            self.errors
                .log(device, "port write", port.into(), data.len(), error);
        }
    }

    /// Reads `data.len()` bytes (1, 2, 4 or 8) from guest-physical address `gpa`.
    pub fn read_mmio(&self, gpa: u64, data: &mut [u8]) {
        let Some(device) = self.device(self.routes.mmio(gpa)) else {
            data.fill(0xff);
            return self.mmio.count_read("memory", gpa, data.len(), false);
        };
        let result = device.device().lock().read_mmio(gpa, data);
        if let Err(error) = result {
            data.fill(0xff);
            self.errors
                .log(device, "memory read", gpa, data.len(), error);
        }
    }

    /// Writes `data` (1, 2, 4 or 8 bytes) to guest-physical address `gpa`.
    pub fn write_mmio(&self, gpa: u64, data: &[u8]) {
        let Some(device) = self.device(self.routes.mmio(gpa)) else {
            return self.mmio.count_write("memory", gpa, data, false);
        };
        let result = device.device().lock().write_mmio(gpa, data);
        if let Err(error) = result {
            self.errors
                .log(device, "memory write", gpa, data.len(), error);
        }
    }

    /// The number of accesses that no device claimed.
    pub fn unclaimed(&self) -> UnclaimedCounts {
        UnclaimedCounts {
            port_reads: self.ports.reads.load(Ordering::Relaxed),
            port_writes: self.ports.writes.load(Ordering::Relaxed),
            mmio_reads: self.mmio.reads.load(Ordering::Relaxed),
            mmio_writes: self.mmio.writes.load(Ordering::Relaxed),
        }
    }

    fn device(&self, index: Option<usize>) -> Option<&AttachedDevice> {
        self.devices.get(index?)
    }
}

impl Unclaimed {
    fn count_read(&self, class: &'static str, address: u64, len: usize, quiet: bool) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if !quiet && let Some(suppressed) = self.limit.allow() {
            let address = format_args!("{address:#x}");
            tracing::info!(class, address, len, suppressed, "unclaimed read");
        }
    }

    fn count_write(&self, class: &'static str, address: u64, data: &[u8], quiet: bool) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if !quiet && let Some(suppressed) = self.limit.allow() {
            let address = format_args!("{address:#x}");
            tracing::info!(class, address, ?data, suppressed, "unclaimed write");
        }
    }
}

#[cfg(test)]
#[path = "chipset_test.rs"]
mod tests;
