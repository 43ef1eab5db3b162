//! Options with a few named values.

use clap::ValueEnum;

/// `--hibernation`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum OnOff {
    On,
    Off,
}

/// `--smt`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum Smt {
    Off,
    Force,
}

/// `--hypervisor`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum HypervisorName {
    Kvm,
}

/// `--irqchip`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum IrqchipChoice {
    Kernel,
    Split,
}

/// `--boot-protocol`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum ProtocolChoice {
    Auto,
    Linux64,
    Pvh,
}

/// Reads the name of a value of `T`. Not clap's own parsing of values: that ends at the first error.
pub(super) fn parse_choice<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let values = T::value_variants().iter();
        let names: Vec<_> = values
            .filter_map(T::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        format!("'{text}' is not one of: {}", names.join(", "))
    })
}
