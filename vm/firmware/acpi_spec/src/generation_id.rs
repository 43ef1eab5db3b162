//! The generation ID (Microsoft's Virtual AcpiPlatform Generation ID specification): 128 bits in memory that change
//! when the machine is cloned or rolled back, and an event that says so.

use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::AmlSink;
use acpi_tables::aml::Device;
use acpi_tables::aml::Method;
use acpi_tables::aml::Name;
use acpi_tables::aml::Notify;
use acpi_tables::aml::Package;
use acpi_tables::aml::Path;
use acpi_tables::aml::Scope;

/// Where in its memory the ID is, in bytes. Zeros come before it: a firmware that looks there for a table's
/// header finds none, and keeps the memory.
pub const GENERATION_ID_OFFSET: u32 = 40;

/// The value of a notification that the ID changed.
const CHANGED: u8 = 0x80;

const REVISION: u8 = 2;

/// A 32-bit integer that stays 32 bits long whatever its value is, and can so be overwritten.
struct Address(u32);

impl Aml for Address {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        // DWordPrefix.
        sink.byte(0x0c);
        sink.dword(self.0);
    }
}

/// How many bytes of the SSDT follow the address: the high half, which is zero.
const AFTER_ADDRESS: usize = 1;

/// The SSDT of the device. In place of the address it holds [`GENERATION_ID_OFFSET`], to which the address of
/// the memory is to be added; see [`address_field`].
pub(crate) fn ssdt(event: u8) -> Table {
    let mut body = Vec::new();
    let handler = format!("_E{event:02X}");
    let device = Path::new("\\_SB_.VGEN");
    let notify = Notify::new(&device, &CHANGED);
    let handler = Method::new(Path::new(&handler), 0, false, vec![&notify]);
    Scope::new(Path::new("\\_GPE"), vec![&handler]).to_aml_bytes(&mut body);

    // Last in the table, so that its place is known.
    let high_half = 0u8;
    // What the specification asks for; and since ACPI allows no id of that length, one that it does allow.
    let ids = Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"]);
    let address = Package::new(vec![&Address(GENERATION_ID_OFFSET), &high_half]);
    let mut device = Vec::new();
    Device::new(
        Path::new("VGEN"),
        vec![
            // The ids that the device has on Hyper-V.
            &Name::new(Path::new("_HID"), &"MSFT1002"),
            &Name::new(Path::new("_CID"), &ids),
            &Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
            &Name::new(Path::new("ADDR"), &address),
        ],
    )
    .to_aml_bytes(&mut device);
    body.extend(Scope::raw(Path::new("\\_SB_"), device));
    Table::with_header(*b"SSDT", REVISION, &body)
}

/// Where in the SSDT the address is, and its size, in bytes.
pub(crate) fn address_field(ssdt: &Table) -> (usize, usize) {
    let size = size_of::<u32>();
    (ssdt.bytes.len() - AFTER_ADDRESS - size, size)
}
