use super::*;
use crate::NetBackend as _;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

fn host() -> MacAddress {
    "fe:00:00:00:00:01".parse().unwrap()
}

/// Writes a program that takes the place of passt: a shell script.
fn program(dir: &tempfile::TempDir, script: &str) -> PathBuf {
    let path = dir.path().join("passt");
    std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

fn start_script(script: &str) -> Result<FrameStream, PasstError> {
    let dir = tempfile::tempdir().unwrap();
    let program = program(&dir, script);
    let network = UserNetwork::default();
    start_program(program.to_str().unwrap(), &network, host(), None)
}

#[test]
fn the_network_is_passed_as_options() {
    let forward = |protocol, address: Option<&str>, host_port, guest_port| PortForward {
        protocol,
        host_address: address.map(|address| address.parse().unwrap()),
        host_port,
        guest_port,
    };
    let network = UserNetwork::default();
    let expected = "--quiet --fd 7 --address 10.0.0.2 --netmask 24 --gateway 10.0.0.1 \
        --mac-addr fe:00:00:00:00:01 --tcp-ports none --udp-ports none";
    assert_eq!(arguments(&network, host(), None, 7).join(" "), expected);
    let network = UserNetwork {
        network: [192, 168, 7, 0].into(),
        prefix_len: 28,
        forwards: vec![
            forward(PortProtocol::Tcp, None, 2222, 22),
            forward(PortProtocol::Udp, Some("::1"), 5353, 53),
            forward(PortProtocol::Tcp, Some("127.0.0.1"), 8080, 80),
        ],
    };
    let expected = "--quiet --fd 8 --address 192.168.7.2 --netmask 28 --gateway 192.168.7.1 \
        --mac-addr fe:00:00:00:00:01 --mtu 9000 --tcp-ports 2222:22 --tcp-ports 127.0.0.1/8080:80 \
        --udp-ports ::1/5353:53";
    assert_eq!(
        arguments(&network, host(), Some(9000), 8).join(" "),
        expected
    );
}

/// The script returns the stream's bytes.
#[test]
fn the_program_inherits_the_stream_and_runs_on() {
    let script = r#"[ "$2" = --fd ] && eval "cat <&$3 >&$3 2>/dev/null &""#;
    let stream = start_script(script).unwrap();
    let machine = virtio::testing::TestMachine::new();
    let mut frame = virtio::GuestIoVec::new(&machine.memory);
    frame
        .extend([virtio::Buffer {
            gpa: 0x1000,
            len: 42,
        }])
        .unwrap();
    stream.send(&frame).unwrap();
    rustix::event::poll(&mut [PollFd::new(&stream, PollFlags::IN)], None).unwrap();
    let mut spill = vec![0; crate::header::MAX_LEN as usize];
    assert_eq!(stream.receive(&mut frame, &mut spill).unwrap(), 42);
}

#[test]
fn a_refusal_is_repeated_in_one_line() {
    let script = "echo Failed to send 30 bytes to syslog >&2\n\
        echo Failed to bind any port for 80 >&2\necho >&2\necho exiting >&2; exit 1";
    let error = start_script(script).unwrap_err();
    let text =
        "passt refused the network (exit status: 1): Failed to bind any port for 80; exiting";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_long_refusal_is_cut() {
    let script = "yes 0123456789 | head -c 1000000 >&2; exit 3";
    let PasstError::Refused { words, .. } = start_script(script).unwrap_err() else {
        panic!("not refused");
    };
    assert!(words.len() <= 2 * MAX_WORDS, "{}", words.len());
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let network = UserNetwork::default();
    let error = start_program("/no/such/passt", &network, host(), None).unwrap_err();
    let text = "user-mode networks need the program passt; install it (apt-get install passt)";
    assert_eq!(error.to_string(), text);
}
