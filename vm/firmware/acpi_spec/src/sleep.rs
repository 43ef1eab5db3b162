//! `_PTS` and `_WAK` (ACPI 6.5, 7.4.1 and 7.4.5), which announce to the machine that the operating system goes to
//! sleep or woke up.

use crate::platform::SleepAnnouncements;
use acpi_tables::Aml;
use acpi_tables::aml::And;
use acpi_tables::aml::Arg;
use acpi_tables::aml::Field;
use acpi_tables::aml::FieldAccessType;
use acpi_tables::aml::FieldEntry;
use acpi_tables::aml::FieldLockRule;
use acpi_tables::aml::FieldUpdateRule;
use acpi_tables::aml::Local;
use acpi_tables::aml::Method;
use acpi_tables::aml::OpRegion;
use acpi_tables::aml::OpRegionSpace;
use acpi_tables::aml::Or;
use acpi_tables::aml::Package;
use acpi_tables::aml::Path;
use acpi_tables::aml::Return;

/// The bits of an announcement with the sleep state.
const STATE: u8 = 0xf;

/// Adds the methods and the port they write to, at the root of the namespace.
pub(crate) fn announcements(out: &mut Vec<u8>, announcements: &SleepAnnouncements) {
    let length = 1u8;
    OpRegion::new(
        Path::new("SLPA"),
        OpRegionSpace::SystemIO,
        &announcements.port,
        &length,
    )
    .to_aml_bytes(out);
    Field::new(
        Path::new("SLPA"),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        vec![FieldEntry::Named(*b"SLPV", 8)],
    )
    .to_aml_bytes(out);

    let (state, value, port) = (Arg(0), Local(0), Path::new("SLPV"));
    let masked = And::new(&value, &state, &STATE);
    let prepare = Or::new(&port, &value, &announcements.prepare);
    Method::new(Path::new("_PTS"), 1, false, vec![&masked, &prepare]).to_aml_bytes(out);
    let wake = Or::new(&port, &value, &announcements.wake);
    // Conditions and power supply state: nothing to report.
    let nothing = 0u8;
    let result = Package::new(vec![&nothing, &nothing]);
    Method::new(
        Path::new("_WAK"),
        1,
        false,
        vec![&masked, &wake, &Return::new(&result)],
    )
    .to_aml_bytes(out);
}
