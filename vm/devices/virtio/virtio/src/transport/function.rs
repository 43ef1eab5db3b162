//! The PCI function: its configuration space, BARs and interrupts.

use crate::DeviceInfo;
use crate::InterruptSink;
use crate::common_config::NO_VECTOR;
use crate::transport::connection::MultiFunction;
use crate::transport::connection::PciConnection;
use parking_lot::Mutex;
use parking_lot::MutexGuard;
use pci_core::Bar;
use pci_core::FunctionBuilder;
use pci_core::HardwareIds;
use pci_core::MsixInterrupt;
use pci_core::MsixLayout;
use pci_core::PciFunction;
use pci_core::PciLayoutError;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

/// The PCI vendor ID of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// The PCI device ID of device type 0.
const DEVICE_BASE: u16 = 0x1040;
/// The ID of vendor-specific capabilities.
const VENDOR_CAPABILITY: u8 = 9;

/// Structure types (4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// The BAR that holds the structures.
pub(crate) const BAR: usize = 0;
const MSIX_BAR: usize = 2;
/// Each structure has its own page, so that a hypervisor can map them differently.
pub(crate) const PAGE: u64 = 0x1000;
pub(crate) const COMMON: u64 = 0;
pub(crate) const ISR: u64 = 1;
pub(crate) const DEVICE: u64 = 2;
pub(crate) const NOTIFY: u64 = 3;
const BAR_SIZE: u64 = 4 * PAGE;
const COMMON_LEN: u32 = 0x3c;
/// Bytes between the notification addresses of two queues.
pub(crate) const NOTIFY_STRIDE: u64 = 4;
/// The number of notification addresses.
const MAX_QUEUES: usize = (PAGE / NOTIFY_STRIDE) as usize;

/// ISR status (4.1.4.5): a queue has used buffers.
const ISR_QUEUE: u8 = 1;
/// ISR status: the configuration or the status changed.
const ISR_CONFIG: u8 = 2;

/// Why a virtio device cannot be created as a PCI function.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The properties of the device type are invalid.
    #[error("virtio device {name}: invalid {what}")]
    Info {
        /// The name of the device.
        name: String,
        /// The invalid part of its [`DeviceInfo`].
        what: &'static str,
    },
    /// The PCI function cannot be laid out.
    #[error("virtio device {name}: failed to lay out the PCI function")]
    Layout {
        /// The name of the device.
        name: String,
        /// The reason.
        #[source]
        source: PciLayoutError,
    },
    /// An eventfd cannot be created.
    #[error("virtio device {name}: failed to create an eventfd")]
    Event {
        /// The name of the device.
        name: String,
        /// The error of the host.
        #[source]
        source: std::io::Error,
    },
}

/// Builds the function. Also returns the offset of its `VIRTIO_PCI_CAP_PCI_CFG` capability (4.1.4.9).
pub(crate) fn build(
    info: &DeviceInfo,
    connection: &mut PciConnection<'_>,
) -> Result<(PciFunction, u16), TransportError> {
    let info_error = |what| TransportError::Info {
        name: connection.name.clone(),
        what,
    };
    if info.queue_sizes.is_empty() || info.queue_sizes.len() > MAX_QUEUES {
        return Err(info_error("number of queues"));
    }
    let possible = |size: &u16| size.is_power_of_two();
    if !info.queue_sizes.iter().all(possible) {
        return Err(info_error("queue size"));
    }
    if u64::from(info.config_len) > PAGE {
        return Err(info_error("length of the configuration"));
    }
    if info.features & 0x0003_ffff_ff00_0000 != 0 {
        return Err(info_error("features"));
    }
    let Some(device) = DEVICE_BASE.checked_add(info.device_type) else {
        return Err(info_error("device type"));
    };
    lay_out(info, connection, device).map_err(|source| TransportError::Layout {
        name: connection.name.clone(),
        source,
    })
}

fn lay_out(
    info: &DeviceInfo,
    connection: &mut PciConnection<'_>,
    device: u16,
) -> Result<(PciFunction, u16), PciLayoutError> {
    let mut builder = FunctionBuilder::new(&HardwareIds {
        vendor: VENDOR,
        device,
        revision: 1,
        class: info.class,
        subsystem_vendor: VENDOR,
        subsystem: device,
    });
    if connection.multi_function == MultiFunction::Yes {
        builder.multifunction();
    }
    let bar = Bar::Memory64 {
        size: BAR_SIZE,
        // Reading the ISR status clears it.
        prefetchable: false,
    };
    builder.bar(BAR, bar)?;
    // One vector for the configuration and one per queue.
    let vectors = info.queue_sizes.len() as u16 + 1;
    let table = u32::from(vectors) * 16;
    let msix = MsixLayout {
        bar: MSIX_BAR,
        vectors,
        table_offset: 0,
        pending_offset: table,
    };
    let size = (table + u32::from(vectors).div_ceil(64) * 8).next_power_of_two();
    // 64-bit as the other: firmware may have no room below 4 GiB.
    let bar = Bar::Memory64 {
        size: u64::from(size).max(PAGE),
        prefetchable: false,
    };
    builder.bar(MSIX_BAR, bar)?;
    builder.msix(msix, connection.msi)?;
    builder.intx(
        connection
            .line
            .take()
            .unwrap_or_else(chipset_device::LineInterrupt::detached),
    );
    let notify_len = info.queue_sizes.len() as u32 * NOTIFY_STRIDE as u32;
    let stride = (NOTIFY_STRIDE as u32).to_le_bytes();
    let mut structures = vec![
        structure(COMMON_CFG, COMMON, COMMON_LEN, &[]),
        structure(ISR_CFG, ISR, 1, &[]),
        structure(NOTIFY_CFG, NOTIFY, notify_len, &stride),
    ];
    if info.config_len != 0 {
        let kind = DEVICE_CFG;
        structures.push(structure(kind, DEVICE, info.config_len, &[]));
    }
    for body in structures {
        builder.capability(VENDOR_CAPABILITY, &body, &[])?;
    }
    // The driver writes BAR, offset and length; the data after them is not a register.
    let body = structure(PCI_CFG, 0, 0, &[0; 4]);
    let mut writable = [0; 18];
    writable[2] = 0xff;
    writable[6..14].fill(0xff);
    let window = builder.capability(VENDOR_CAPABILITY, &body, &writable)?;
    Ok((builder.build(connection.decoder.clone()), window))
}

/// The body of the capability that describes a structure (4.1.4), after ID and link.
fn structure(kind: u8, page: u64, len: u32, more: &[u8]) -> Vec<u8> {
    let mut body = vec![16 + more.len() as u8, kind, BAR as u8, 0, 0, 0];
    body.extend(((page * PAGE) as u32).to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(more);
    body
}

/// The function and the ISR status, which drives its interrupt pin.
pub(crate) struct FunctionInner {
    pub(crate) pci: PciFunction,
    pub(crate) isr: u8,
}

impl FunctionInner {
    /// Reads the ISR status, which clears it and deasserts the interrupt pin.
    pub(crate) fn take_isr(&mut self) -> u8 {
        self.pci.set_intx(false);
        std::mem::take(&mut self.isr)
    }
}

/// The PCI function, shared with the threads that interrupt through it.
///
/// While its lock is held, only locks of the chipset and of the interrupt controller are taken, and no worker is
/// waited for. Interrupts by MSI-X do not take the lock.
pub(crate) struct SharedFunction {
    inner: Mutex<FunctionInner>,
    vectors: Vec<MsixInterrupt>,
    msix_enabled: AtomicBool,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
}

impl SharedFunction {
    pub(crate) fn new(pci: PciFunction, queues: usize) -> Arc<Self> {
        Arc::new(Self {
            vectors: (0..pci.msix_vectors())
                .filter_map(|i| pci.msix_vector(i))
                .collect(),
            inner: Mutex::new(FunctionInner { pci, isr: 0 }),
            msix_enabled: AtomicBool::new(false),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, FunctionInner> {
        self.inner.lock()
    }

    /// Call this with the lock held after anything that may have enabled or disabled MSI-X.
    pub(crate) fn msix_changed(&self, inner: &FunctionInner) {
        self.msix_enabled
            .store(inner.pci.msix_enabled(), Ordering::Release);
    }

    pub(crate) fn set_vector(&self, queue: Option<u16>, vector: u16) {
        let current = match queue {
            None => Some(&self.config_vector),
            Some(index) => self.queue_vectors.get(usize::from(index)),
        };
        if let Some(current) = current {
            current.store(vector, Ordering::Release);
        }
    }

    fn raise(&self, vector: &AtomicU16, isr: u8) {
        if !self.msix_enabled.load(Ordering::Acquire) {
            let mut inner = self.inner.lock();
            if !inner.pci.msix_enabled() {
                inner.isr |= isr;
                inner.pci.set_intx(true);
                return;
            }
        }
        let vector = usize::from(vector.load(Ordering::Acquire));
        if let Some(vector) = self.vectors.get(vector) {
            vector.signal();
        }
    }
}

/// The interrupts of a function.
pub(crate) struct FunctionInterrupts(pub(crate) Arc<SharedFunction>);

impl InterruptSink for FunctionInterrupts {
    fn queue(&self, index: u16) {
        if let Some(vector) = self.0.queue_vectors.get(usize::from(index)) {
            self.0.raise(vector, ISR_QUEUE);
        }
    }

    fn config(&self) {
        self.0.raise(&self.0.config_vector, ISR_CONFIG);
    }
}
