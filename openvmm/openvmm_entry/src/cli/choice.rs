//! Options with a few named values.

use clap::ValueEnum;

/// `--hibernation` and `--nested`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum OnOff {
    On,
    Off,
}

/// `--smt`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum Smt {
    /// As this program chooses: off.
    Auto,
    Off,
    Force,
}

/// `--x2apic`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum X2Apic {
    Auto,
    Supported,
    Off,
    On,
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

/// `--uefi-console-mode`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum ConsoleChoice {
    /// The video device.
    Default,
    Com1,
    Com2,
    None,
}

/// `--efi-diagnostics-log-level`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevelChoice {
    /// Errors and warnings.
    Default,
    Info,
    Full,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_names_are_parsed() {
        assert_eq!(parse_choice("on"), Ok(OnOff::On));
        assert_eq!(parse_choice("off"), Ok(OnOff::Off));
        assert_eq!(parse_choice("off"), Ok(Smt::Off));
        assert_eq!(parse_choice("force"), Ok(Smt::Force));
        assert_eq!(parse_choice("auto"), Ok(Smt::Auto));
        assert_eq!(parse_choice("auto"), Ok(X2Apic::Auto));
        assert_eq!(parse_choice("supported"), Ok(X2Apic::Supported));
        assert_eq!(parse_choice("kvm"), Ok(HypervisorName::Kvm));
        assert_eq!(parse_choice("kernel"), Ok(IrqchipChoice::Kernel));
        assert_eq!(parse_choice("split"), Ok(IrqchipChoice::Split));
        assert_eq!(parse_choice("auto"), Ok(ProtocolChoice::Auto));
        assert_eq!(parse_choice("linux64"), Ok(ProtocolChoice::Linux64));
        assert_eq!(parse_choice("pvh"), Ok(ProtocolChoice::Pvh));
        assert_eq!(parse_choice("default"), Ok(ConsoleChoice::Default));
        assert_eq!(parse_choice("com1"), Ok(ConsoleChoice::Com1));
        assert_eq!(parse_choice("com2"), Ok(ConsoleChoice::Com2));
        assert_eq!(parse_choice("none"), Ok(ConsoleChoice::None));
        assert_eq!(parse_choice("default"), Ok(LogLevelChoice::Default));
        assert_eq!(parse_choice("info"), Ok(LogLevelChoice::Info));
        assert_eq!(parse_choice("full"), Ok(LogLevelChoice::Full));
    }

    #[test]
    fn an_error_lists_the_names() {
        assert_eq!(
            parse_choice::<ProtocolChoice>("PVH"),
            Err("'PVH' is not one of: auto, linux64, pvh".into())
        );
    }
}
