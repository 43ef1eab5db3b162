//! A channel to a second process: this test program, run again with the other end as its standard input.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use libtest_mimic::Arguments;
use libtest_mimic::Trial;
use mesh::Attachments;
use mesh::BoundedSender;
use mesh::Fd;
use mesh::Rpc;
use mesh::RpcError;
use mesh_remote::ChannelError;
use mesh_remote::receiver;
use mesh_remote::sender;
use mesh_remote::socket_pair;
use minicbor::Decode;
use minicbor::Encode;
use pal_async::DefaultPool;
use pal_async::Driver;
use pal_async::Task;
use rustix::fs::MemfdFlags;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;

/// The argument that makes this program the other process.
const PEER: &str = "--peer";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(PEER) {
        peer();
        return ExitCode::SUCCESS;
    }
    let test = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let tests = vec![
        test(
            "memory_is_shared_and_replies_come_back",
            memory_is_shared_and_replies_come_back,
        ),
        test(
            "a_killed_process_fails_the_requests_that_wait",
            a_killed_process_fails_the_requests_that_wait,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

#[derive(Encode, Decode)]
#[cbor(context_bound = "AsMut<Attachments>")]
enum Request {
    /// Appends to the file, and gives the process' number and another file with the same content.
    #[n(0)]
    #[cbor(map)]
    Append(#[n(1)] Rpc<Fd, Appended>),
    /// Tells that it has arrived by dropping the descriptor, and is never answered.
    #[n(1)]
    #[cbor(map)]
    Hang(#[n(1)] Rpc<Fd, ()>),
}

#[derive(Encode, Decode)]
#[cbor(map, context_bound = "AsMut<Attachments>")]
struct Appended {
    #[n(1)]
    process: u32,
    #[n(2)]
    copy: Fd,
}

fn memfd(content: &[u8]) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, content).unwrap();
    fd
}

fn content(fd: impl AsFd) -> Vec<u8> {
    let mut buffer = vec![0; 64];
    let len = rustix::io::pread(fd, &mut buffer, 0).unwrap();
    buffer.truncate(len);
    buffer
}

fn peer() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    DefaultPool::run_with(async |driver| {
        let (mut requests, channel) = receiver::<Request>(&driver, socket).unwrap();
        let mut hanging = Vec::new();
        while let Ok(request) = requests.recv().await {
            match request {
                Request::Append(rpc) => rpc.handle_sync(|file| {
                    rustix::io::write(&file, b" and peer").unwrap();
                    Appended {
                        process: std::process::id(),
                        copy: memfd(&content(&file)).into(),
                    }
                }),
                Request::Hang(rpc) => {
                    let (fd, rpc) = rpc.split();
                    hanging.push(rpc);
                    drop(fd);
                }
            }
        }
        drop(hanging);
        channel.await.unwrap().unwrap();
    });
}

type Sending = Task<Result<(), ChannelError>>;

fn spawn_peer(driver: &Driver) -> (Child, BoundedSender<Request>, Sending) {
    let (here, there) = socket_pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg(PEER)
        .stdin(Stdio::from(there))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (requests, sending) = sender(driver, here).unwrap();
    (child, requests, sending)
}

fn memory_is_shared_and_replies_come_back() {
    DefaultPool::run_with(async |driver| {
        let (mut child, requests, sending) = spawn_peer(&driver);
        let file = memfd(b"parent");
        let shared = file.try_clone().unwrap();
        let appended = requests.call(Request::Append, file.into()).await.unwrap();
        assert_eq!(appended.process, child.id());
        assert_eq!(content(&shared), b"parent and peer");
        assert_eq!(content(&appended.copy), b"parent and peer");
        drop(requests);
        sending.await.unwrap().unwrap();
        assert!(child.wait().unwrap().success());
    });
}

fn a_killed_process_fails_the_requests_that_wait() {
    DefaultPool::run_with(async |driver| {
        let (mut child, requests, sending) = spawn_peer(&driver);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut calls = Vec::new();
        for _ in 0..3 {
            let fd = writer.try_clone().unwrap();
            let requests = requests.clone();
            calls.push(driver.spawn("call", async move {
                requests.call(Request::Hang, OwnedFd::from(fd).into()).await
            }));
        }
        drop(writer);
        // The end of the pipe: every request has arrived.
        let reader = driver.polled_fd(reader).unwrap();
        reader.readable().await.unwrap();
        child.kill().unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap(), Err(RpcError::NoReply));
        }
        sending.await.unwrap().unwrap();
        let late = requests.call(Request::Hang, memfd(b"").into()).await;
        assert_eq!(late, Err(RpcError::Closed));
        child.wait().unwrap();
    });
}
