use super::super::Options;
use clap::Parser;
use rustix::fs::Mode;
use std::path::Path;
use std::path::PathBuf;

/// Files to name in options, of which `kernel` always is one.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for name in ["kernel", "firmware", "file"] {
            std::fs::write(files.at(name), [7; 4096]).unwrap();
        }
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The errors of these options: each is written with `=`, and `@` stands for the path.
    fn errors(&self, options: &[&str], path: &Path) -> String {
        let path = path.to_str().unwrap();
        let mut arguments = vec!["openvmm".to_owned()];
        let given = |name: &str| options.iter().any(|option| option.starts_with(name));
        if !given("--kernel=") {
            arguments.push(format!("--kernel={}", self.at("kernel").display()));
        }
        if !given("--uefi-firmware=") && (given("--uefi-vars=") || given("--vmgs=")) {
            arguments.push(format!("--uefi-firmware={}", self.at("firmware").display()));
        }
        arguments.extend(options.iter().map(|option| option.replace('@', path)));
        let parsed = Options::try_parse_from(arguments).unwrap();
        parsed
            .resolve()
            .err()
            .map(|errors| errors.to_string())
            .unwrap_or_default()
    }
}

const INPUTS: [&str; 6] = [
    "--kernel=@",
    "--initrd=@",
    "--uefi-firmware=@",
    "--disk=file:@,ro",
    "--disk=memdiff:file:@",
    "--virtio-blk=file:@,ro",
];

const OUTPUTS: [&str; 11] = [
    "--memory=32M,file=@",
    "--uefi-vars=@",
    "--vmgs=@",
    "--vmgs=file:@",
    "--disk=file:@",
    "--com1=file=@",
    "--com2=file=@",
    "--debugcon=0x402:file=@",
    "--json-events=@",
    "--pidfile=@",
    "--log-file=@",
];

#[test]
fn no_pair_of_options_writes_a_file_that_both_name() {
    let files = Files::new();
    let file = files.at("file");
    let hard = files.at("hard");
    std::fs::hard_link(&file, &hard).unwrap();
    let refused =
        |errors: &str| errors.contains("the same file") || errors.contains("the same place");
    for output in OUTPUTS {
        for other in INPUTS.iter().chain(&OUTPUTS) {
            let option = |text: &str| text.split('=').next().unwrap().to_owned();
            if option(output) == option(other) && !output.starts_with("--disk") {
                continue;
            }
            for name in [&file, &hard] {
                let other = other.replace('@', name.to_str().unwrap());
                let errors = files.errors(&[output, &other], &file);
                assert!(refused(&errors), "{output} {other}: {errors}");
            }
        }
    }
    // Nothing was written by the checks, and inputs may be shared.
    assert_eq!(std::fs::read(&file).unwrap(), [7; 4096]);
    let errors = files.errors(&["--disk=file:@,ro", "--disk=memdiff:file:@"], &file);
    assert!(!refused(&errors), "{errors}");
}

#[test]
fn an_event_descriptor_is_a_file_too() {
    use std::os::fd::AsRawFd;
    let files = Files::new();
    let open = std::fs::File::open(files.at("file")).unwrap();
    let events = format!("--json-events=fd={}", open.as_raw_fd());
    let errors = files.errors(&["--disk=file:@", &events], &files.at("file"));
    assert!(errors.contains("the same file"), "{errors}");
}

#[test]
fn only_files_of_the_right_type_are_taken() {
    let files = Files::new();
    let pipe = files.at("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    for option in [
        "--kernel=@",
        "--initrd=@",
        "--uefi-firmware=@",
        "--uefi-vars=@",
        "--vmgs=@",
        "--memory=32M,file=@",
        "--memory-backing-file=@",
    ] {
        for (path, kind) in [
            (&*pipe, "it is a named pipe"),
            (Path::new("/dev/null"), "it is a character device"),
            (files.0.path(), "it is a directory"),
        ] {
            let errors = files.errors(&[option], path);
            assert!(errors.contains(kind), "{option}: {errors}");
        }
    }
}
