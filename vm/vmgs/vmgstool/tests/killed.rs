//! Killing the tool while it edits a store leaves the old or the new store.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dir;

use dir::Dir;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::FileId;
use vmgs::StoreAccess;

use vmgs::Key;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs_format::FileIdRange;

const TOOL: &str = env!("CARGO_BIN_EXE_vmgstool");
const KEYS: [&str; 2] = ["key", "newkey"];

/// An edit: `old.vmgs` is the store before it, and the command changes `a.vmgs`, a copy.
struct Edit {
    create: &'static str,
    command: &'static str,
}

const EDITS: [Edit; 10] = [
    Edit {
        create: "",
        command: "write -f a.vmgs -i 19 -d image --force",
    },
    Edit {
        create: "-k key -e AES_GCM",
        command: "write -f a.vmgs -i 19 -d image -k key --force",
    },
    Edit {
        create: "-k key -e AES_GCM",
        command: "uefi-nvram import -f a.vmgs -k key -d vars.json --replace",
    },
    Edit {
        create: "",
        command: "uefi-nvram remove-boot-entries -f a.vmgs",
    },
    Edit {
        create: "",
        command: "move -f a.vmgs --src 5 --dst 19 --force",
    },
    Edit {
        create: "-k key -e AES_GCM",
        command: "update-key -f a.vmgs -k key -n newkey -e AES_GCM",
    },
    Edit {
        create: "",
        command: "encrypt -f a.vmgs -k key -e AES_GCM",
    },
    Edit {
        create: "-k key -e AES_GCM",
        command: "rekey -f a.vmgs -k key",
    },
    Edit {
        create: "",
        command: "grow -f a.vmgs -s 8388608",
    },
    Edit {
        create: "",
        command: "create -f a.vmgs --force-create",
    },
];

/// The complete content of a store, and the key that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    key: Option<&'static str>,
    files: BTreeMap<u32, (Vec<u8>, bool)>,
    size: u64,
    free: u64,
}

fn contents(dir: &Dir, name: &str) -> Contents {
    let device = FileDevice::open(&dir.path(name), Container::Vhd1, StoreAccess::ReadOnly).unwrap();
    let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    let key = store.is_encrypted().then(|| {
        KEYS.into_iter()
            .find(|name| {
                let key = Key::from_slice(&dir.get(name)).unwrap();
                store.unlock(&key).is_ok()
            })
            .unwrap()
    });
    assert_eq!(store.verify(|_, _| ()), []);
    let ids: Vec<(FileId, bool)> = store
        .files()
        .filter(|(id, _)| id.range() == FileIdRange::File)
        .map(|(id, info)| (id, info.encrypted))
        .collect();
    Contents {
        key,
        files: ids
            .into_iter()
            .map(|(id, encrypted)| (id.0, (store.read(id).unwrap(), encrypted)))
            .collect(),
        size: store.device_size(),
        free: store.free_size(),
    }
}

/// A directory with the store before the edit, its content, and its content after the edit.
fn prepare(edit: &Edit, image_len: usize) -> (Dir, Contents, Contents) {
    let dir = Dir::new();
    let variables = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/nvram.bin");
    dir.put("key", &[1; 32]);
    dir.put("newkey", &[2; 32]);
    dir.put("nvram", &std::fs::read(variables).unwrap());
    dir.put("small", b"of no importance");
    dir.put("before", &vec![1; image_len]);
    dir.put("image", &vec![2; image_len + 1000]);
    dir.put(
        "vars.json",
        br#"{"variables":[{"vendor":"8be4df61-93ca-11d2-aa0d-00e098032b8c","name":"Lang",
            "attributes":7,"data":"656e6700"}]}"#,
    );
    let key = if edit.create.is_empty() {
        ""
    } else {
        " -k key"
    };
    let create = format!("create -f old.vmgs -s 4194304 {}", edit.create);
    dir.ok(create.trim_end());
    for (id, file) in [("1", "nvram"), ("5", "small"), ("19", "before")] {
        dir.ok(&format!("write -f old.vmgs -i {id} -d {file}{key}"));
    }
    let old = contents(&dir, "old.vmgs");
    std::fs::copy(dir.path("old.vmgs"), dir.path("a.vmgs")).unwrap();
    dir.ok(edit.command);
    let new = contents(&dir, "a.vmgs");
    if !edit.command.starts_with("rekey") {
        assert_ne!(old, new, "{}: an edit that can be seen", edit.command);
    }
    (dir, old, new)
}

/// Checks the store that a killed tool left, and changes it further.
fn check(dir: &Dir, edit: &Edit, old: &Contents, new: &Contents, when: &str) -> bool {
    let found = contents(dir, "a.vmgs");
    assert!(
        found == *old || found == *new,
        "{} killed {when} left neither: key {:?}, {} bytes free, files {:?}",
        edit.command,
        found.key,
        found.free,
        found.files.keys()
    );
    let is_new = found == *new;
    // The process no longer holds the lock, and the store can be changed.
    let device = FileDevice::open(&dir.path("a.vmgs"), Container::Vhd1, StoreAccess::ReadWrite);
    let mut store = Vmgs::open(Box::new(device.unwrap()), OpenOptions::default()).unwrap();
    store
        .write(FileId(60), Protection::Plain, b"alive")
        .unwrap();
    store.delete(FileId(60)).unwrap();
    drop(store);
    assert_eq!(contents(dir, "a.vmgs"), found);
    is_new
}

#[test]
fn killing_the_tool_at_any_time_leaves_the_old_or_the_new_store() {
    const KILLS: u32 = 30;
    let mut total = [0; 2];
    for edit in &EDITS {
        let (dir, old, new) = prepare(edit, 1_500_000);
        let start = |dir: &Dir| {
            std::fs::copy(dir.path("old.vmgs"), dir.path("a.vmgs")).unwrap();
            Command::new(TOOL)
                .args(edit.command.split(' '))
                .current_dir(dir.path(""))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let began = Instant::now();
        assert!(start(&dir).wait().unwrap().success());
        let whole = began.elapsed();
        for n in 0..KILLS {
            let delay = whole * n / KILLS;
            let mut child = start(&dir);
            std::thread::sleep(delay);
            child.kill().unwrap();
            child.wait().unwrap();
            let is_new = check(&dir, edit, &old, &new, &format!("after {delay:?}"));
            total[usize::from(is_new)] += 1;
        }
    }
    println!(
        "{} times the old store, {} times the new",
        total[0], total[1]
    );
}

/// The system calls that change a file or directory, or end the tool. Killing the tool between two of them
/// has the same effect as killing it at the second.
fn is_change(number: i64) -> bool {
    use nix::libc;
    [
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_pwritev2,
        libc::SYS_sync_file_range,
        libc::SYS_fdatasync,
        libc::SYS_fsync,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_copy_file_range,
        libc::SYS_sendfile,
        libc::SYS_splice,
        libc::SYS_rename,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_link,
        libc::SYS_linkat,
        libc::SYS_unlink,
        libc::SYS_unlinkat,
        libc::SYS_fchmod,
        libc::SYS_fchown,
        libc::SYS_flock,
        libc::SYS_exit_group,
    ]
    .contains(&number)
}

/// Runs the edit, and kills the tool when it starts the system call after the first `changes`. Returns
/// whether there was such a call.
#[allow(clippy::zombie_processes, reason = "it is waited for by its id")]
fn kill_at(dir: &Dir, edit: &Edit, changes: usize) -> bool {
    std::fs::copy(dir.path("old.vmgs"), dir.path("a.vmgs")).unwrap();
    // The child stops before it executes the tool, to be traced.
    let child = Command::new("sh")
        .args(["-c", "kill -STOP $$; exec \"$0\" \"$@\"", TOOL])
        .args(edit.command.split(' '))
        .current_dir(dir.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let stopped = waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    ptrace::attach(pid).unwrap();
    waitpid(pid, None).unwrap();
    ptrace::setoptions(
        pid,
        ptrace::Options::PTRACE_O_TRACESYSGOOD
            | ptrace::Options::PTRACE_O_TRACEEXEC
            | ptrace::Options::PTRACE_O_EXITKILL,
    )
    .unwrap();
    nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
    let (mut is_tool, mut inside, mut seen) = (false, false, 0);
    loop {
        ptrace::syscall(pid, None).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::Exited(_, code) => {
                assert_eq!(code, 0, "{}", edit.command);
                return false;
            }
            // The end of the execve call that starts the tool is still to come.
            WaitStatus::PtraceEvent(..) => (is_tool, inside) = (true, true),
            WaitStatus::PtraceSyscall(_) if is_tool => {
                inside = !inside;
                let number = ptrace::getregs(pid).unwrap().orig_rax.cast_signed();
                seen += usize::from(inside && is_change(number));
                if seen > changes {
                    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
                    let ended = waitpid(pid, None).unwrap();
                    assert_eq!(ended, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
                    return true;
                }
            }
            WaitStatus::PtraceSyscall(_) | WaitStatus::Stopped(..) => {}
            status => panic!("{}: {status:?}", edit.command),
        }
    }
}

#[test]
fn killing_the_tool_before_any_system_call_leaves_the_old_or_the_new_store() {
    let mut total = [0; 2];
    for edit in &EDITS {
        let (dir, old, new) = prepare(edit, 20_000);
        let mut outcomes = [0; 2];
        let mut changes = 0;
        while kill_at(&dir, edit, changes) {
            let is_new = check(&dir, edit, &old, &new, &format!("after {changes} changes"));
            outcomes[usize::from(is_new)] += 1;
            changes += 1;
        }
        assert_eq!(contents(&dir, "a.vmgs"), new);
        if old != new {
            // Both cases occur: it is killed before its first change, and just before it ends.
            assert!(
                outcomes[0] > 0 && outcomes[1] > 0,
                "{}: {outcomes:?}",
                edit.command
            );
        }
        for n in [0, 1] {
            total[n] += outcomes[n];
        }
    }
    println!(
        "{} times the old store, {} times the new",
        total[0], total[1]
    );
}
