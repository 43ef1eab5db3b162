use super::*;
use crate::cli::Invocation;
use clap::Parser;
use openvmm_defs::config::BootFailure;

fn resolve(args: &[&str]) -> Result<Invocation, String> {
    let args = std::iter::once("openvmm").chain(args.iter().copied());
    let options = Options::try_parse_from(args).map_err(|error| error.to_string())?;
    options.resolve().map_err(|errors| errors.to_string())
}

/// A file to name.
fn file() -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

fn value(path: &str, guest: Option<GuestType>) -> Result<IgvmValue, String> {
    Ok(IgvmValue {
        path: path.into(),
        guest,
        profile: None,
    })
}

#[test]
fn a_value_is_a_path_unless_it_begins_with_a_key() {
    assert_eq!(parse_igvm("a,type=uefi"), value("a,type=uefi", None));
    assert_eq!(parse_igvm("./type=x"), value("./type=x", None));
    assert_eq!(parse_igvm("path=a=b,type=c"), value("a=b,type=c", None));
    let typed = value("a,b", Some(GuestType::Linux));
    assert_eq!(parse_igvm("type=linux,path=a,b"), typed);
    assert_eq!(parse_igvm("type=linux-direct,path=a,b"), typed);
    assert_eq!(
        parse_igvm("type=uefi,path=a"),
        value("a", Some(GuestType::Uefi))
    );
    for (wrong, reason) in [
        ("", "a file is needed"),
        ("path=", "path= needs a file"),
        ("type=linux", "path=FILE is missing"),
        ("type=linux,", "path=FILE is missing"),
        ("type=linux,type=uefi,path=a", "type is given twice"),
        ("type=bios,path=a", "not one of: linux"),
        ("type=linux,size=3,path=a", "'size=3' is not one of"),
    ] {
        let error = parse_igvm(wrong).unwrap_err();
        assert!(error.contains(reason), "{wrong}: {error}");
    }
}

#[test]
fn both_spellings_of_a_type_are_the_same() {
    let (_file, path) = file();
    let typed = format!("type=linux,path={path}");
    let typed = resolve(&["--igvm", &typed, "-c", "a", "-c", "b"]).unwrap();
    let named = ["--igvm", &path, "--igvm-personality", "linux-direct"];
    let named = resolve(&[&named[..], &["-c", "a b"]].concat()).unwrap();
    let LoadMode::Igvm(igvm) = &typed.vm.load_mode else {
        panic!("{:?}", typed.vm.load_mode);
    };
    assert_eq!(igvm.cmdline.as_deref(), Some("a b"));
    assert_eq!(igvm.host, IgvmHost::Linux);
    assert_eq!(typed.vm.load_mode, named.vm.load_mode);
    assert_eq!(typed.vm.uuid, named.vm.uuid);
}

#[test]
fn firmware_for_pcs_has_a_profile_of_its_own() {
    let (_file, path) = file();
    let value = format!("type=uefi,profile=pc-uefi,path={path}");
    let short = format!("profile=pc-uefi,path={path}");
    let kernel = ["--kernel", &path, "-c", "quiet"];
    let long = resolve(&[&["--igvm", &value], &kernel[..]].concat()).unwrap();
    let short = resolve(&[&["--igvm", &short], &kernel[..]].concat()).unwrap();
    assert_eq!(long.vm.load_mode, short.vm.load_mode);
    let LoadMode::Igvm(igvm) = long.vm.load_mode else {
        panic!("{:?}", long.vm.load_mode);
    };
    // The command line is the kernel's.
    assert_eq!(igvm.cmdline, None);
    let IgvmHost::PcUefi(host) = igvm.host else {
        panic!("{:?}", igvm.host);
    };
    assert_eq!(host.variables, UefiVariables::Memory(None));
    assert_eq!(host.kernel.unwrap().cmdline, "quiet");
    for (more, reason) in [
        (&["--uefi"][..], "--uefi cannot be combined with --igvm"),
        (&["-m", "32M"], "64 MiB"),
    ] {
        let error = resolve(&[&["--igvm", &value], more].concat());
        let error = error.err().unwrap_or_default();
        assert!(error.contains(reason), "{more:?}: {error}");
    }
    let linux = format!("type=linux,profile=pc-uefi,path={path}");
    let error = resolve(&["--igvm", &linux]).err().unwrap_or_default();
    assert!(error.contains("profile= is for type=uefi"), "{error}");
}

#[test]
fn firmware_of_generation_2_vms_has_its_options() {
    let (_file, path) = file();
    let typed = format!("type=uefi,path={path}");
    let options = ["--disable-frontpage", "--secure-boot"];
    let typed = resolve(&[&["--igvm", &typed], &options[..]].concat()).unwrap();
    let named = ["--igvm", &path, "--igvm-personality", "uefi"];
    let named = resolve(&[&named[..], &options].concat()).unwrap();
    assert_eq!(typed.vm.load_mode, named.vm.load_mode);
    let LoadMode::Igvm(Igvm {
        host: IgvmHost::HypervUefi(uefi),
        ..
    }) = typed.vm.load_mode
    else {
        panic!("{:?}", typed.vm.load_mode);
    };
    assert_eq!(uefi.settings.boot_failure, BootFailure::PowerOff);
    assert!(uefi.device.secure_boot.is_enabled);
    let value = format!("type=uefi,path={path}");
    for (more, reason) in [
        (&["--uefi"][..], "--uefi cannot be combined with --igvm"),
        (&["--uefi-firmware", &path], "--uefi-firmware cannot be"),
        (&["--kernel", &path], "--kernel: the firmware"),
        (&["-c", "quiet"], "--cmdline: the firmware"),
        (&["--uefi-vars", &path], "--uefi-vars: the firmware"),
        (
            &["--igvm-vtl2-relocation-type", "auto=filesize"],
            "only `disable` is possible",
        ),
    ] {
        let error = resolve(&[&["--igvm", &value], more].concat());
        let error = error.err().unwrap_or_default();
        assert!(error.contains(reason), "{more:?}: {error}");
    }
    let pc = format!("profile=pc-uefi,path={path}");
    let error = resolve(&["--igvm", &pc, "--disable-frontpage"]).err();
    let error = error.unwrap_or_default();
    assert!(error.contains("--disable-frontpage needs"), "{error}");
}

#[test]
fn what_is_missing_or_contradicts_is_an_error() {
    let (_file, path) = file();
    let linux = format!("type=linux,path={path}");
    let linux = ["--igvm", linux.as_str()];
    let relocation = "--igvm-vtl2-relocation-type";
    for (args, reason) in [
        (
            &["--igvm", &path][..],
            "give --igvm type=TYPE,path=FILE, or --igvm FILE with --igvm-personality",
        ),
        (
            &["--igvm", &path, "--igvm-personality", "pcat"],
            "'pcat' is not one of: linux-direct, uefi",
        ),
        (
            &[linux[0], linux[1], "--igvm-personality", "uefi"],
            "--igvm has another type",
        ),
        (
            &[linux[0], linux[1], "--kernel", &path],
            "--kernel cannot be combined with --igvm",
        ),
        (
            &[linux[0], linux[1], "--uefi"],
            "--uefi cannot be combined with --igvm",
        ),
        (&[linux[0], linux[1], "--vmgs", "x"], "--vmgs needs --uefi"),
        (
            &[linux[0], linux[1], relocation, "auto=filesize"],
            "only `disable` is possible",
        ),
        (
            &[linux[0], linux[1], relocation, "somewhere"],
            "'somewhere' is not one of: disable",
        ),
        (
            &["--igvm", "type=linux,path=/nonexistent/file"],
            "--igvm: cannot read /nonexistent/file",
        ),
        (&["--igvm", "type=openhcl,path=x"], "not supported yet"),
    ] {
        let error = resolve(args).err().unwrap_or_default();
        assert!(error.contains(reason), "{args:?}: {error}");
    }
    assert!(resolve(&["--igvm-personality", "uefi"]).is_err());
    resolve(&[linux[0], linux[1], relocation, "disable"]).unwrap();
}
