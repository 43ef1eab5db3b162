use super::*;
use crate::cli::Options;
use clap::CommandFactory;
use clap::Parser;

fn guess(arguments: &[&str]) -> bool {
    let mut arguments = arguments.iter().map(OsString::from);
    arguments.any(|argument| selects_boot(&argument))
}

#[test]
fn every_form_of_the_kernel_option_is_recognized() {
    for arguments in [
        &["-k", "x"][..],
        &["-kx"],
        &["-k=x"],
        &["-Pk", "x"],
        &["-Pkx"],
        &["-Pk=x"],
        &["-p4", "-k", "x"],
        &["--kernel", "x"],
        &["--kernel=x"],
    ] {
        let parsed = Options::try_parse_from([&["openvmm"], arguments].concat()).unwrap();
        assert_eq!(parsed.kernel, Some("x".into()), "{arguments:?}");
        assert!(guess(arguments), "{arguments:?}");
    }
}

#[test]
fn every_form_of_the_uefi_options_is_recognized() {
    for arguments in [
        &["--uefi"][..],
        &["-e"],
        &["-Pe"],
        &["-MePk", "x"],
        &["--uefi-firmware", "x"],
        &["--uefi-firmware=x"],
        &["--uefi-vars=x"],
    ] {
        let parsed = Options::try_parse_from([&["openvmm"], arguments].concat()).unwrap();
        let uefi = parsed.uefi || parsed.uefi_firmware.is_some() || parsed.uefi_vars.is_some();
        assert!(uefi && guess(arguments), "{arguments:?}");
    }
}

#[test]
fn other_arguments_are_not_recognized() {
    for arguments in [
        &["-pk"][..],
        &["-mk"],
        &["-rk"],
        &["-ck"],
        &["-r", "k"],
        &["-P"],
        &["--initrd", "kernel"],
        &["--virtio-rng"],
    ] {
        let parsed = Options::try_parse_from([&["openvmm"], arguments].concat()).unwrap();
        assert_eq!(parsed.kernel, None, "{arguments:?}");
        assert!(!guess(arguments), "{arguments:?}");
    }
    for arguments in [
        &["hibernation", "status", "--vmgs", "k"][..],
        &["--version"],
        &["--help"],
        &["-h"],
        &["-"],
        &["--"],
        &["k"],
    ] {
        assert!(!guess(arguments), "{arguments:?}");
    }
}

#[test]
fn the_short_flags_without_a_value_are_the_only_ones() {
    let command = Options::command();
    let mut flags: Vec<_> = command
        .get_arguments()
        .filter(|argument| !argument.get_action().takes_values())
        .filter_map(clap::Arg::get_short)
        .collect();
    flags.sort_unstable();
    assert_eq!(flags, ['M', 'P', 'e']);
}
