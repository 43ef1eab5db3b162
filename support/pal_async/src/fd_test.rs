use super::*;
use crate::DefaultPool;
use futures::FutureExt;
use rustix::fs::OFlags;
use rustix::fs::fcntl_getfl;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

async fn read(socket: &PolledFd<UnixStream>, buffer: &mut [u8]) -> io::Result<usize> {
    socket.read_with(|mut socket| socket.read(buffer)).await
}

#[test]
fn a_socket_is_readable_when_there_is_data() {
    DefaultPool::run_with(async |driver| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = driver.polled_fd(near).unwrap();
        assert!(is_nonblocking(near.as_ref()));
        let mut buffer = [0; 16];
        assert!(near.readable().now_or_never().is_none());
        assert!(read(&near, &mut buffer).now_or_never().is_none());
        far.write_all(b"hello").unwrap();
        near.readable().await.unwrap();
        assert_eq!(read(&near, &mut buffer).await.unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        drop(far);
        near.readable().await.unwrap();
        assert_eq!(read(&near, &mut buffer).await.unwrap(), 0);
        assert!(near.write_with(|mut near| near.write(b"x")).await.is_err());
    });
}

#[test]
fn a_full_socket_makes_the_writer_wait() {
    DefaultPool::run_with(async |driver| {
        let (near, far) = UnixStream::pair().unwrap();
        let near = driver.polled_fd(near).unwrap();
        let far = driver.polled_fd(far).unwrap();
        let sent = (0..1 << 22).map(|n| n as u8).collect::<Vec<_>>();
        let writer = driver.spawn("writer", {
            let sent = sent.clone();
            async move {
                let mut left = &sent[..];
                while !left.is_empty() {
                    let len = near.write_with(|mut near| near.write(left)).await?;
                    left = &left[len..];
                }
                io::Result::Ok(())
            }
        });
        let mut received = Vec::new();
        let mut buffer = vec![0; 10000];
        loop {
            let len = read(&far, &mut buffer).await.unwrap();
            if len == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..len]);
        }
        writer.await.unwrap().unwrap();
        assert!(received == sent);
    });
}

#[test]
fn any_operation_can_wait_for_readiness() {
    DefaultPool::run_with(async |driver| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = driver
            .polled_fd(UnixListener::bind(&path).unwrap())
            .unwrap();
        assert!(
            listener
                .read_with(UnixListener::accept)
                .now_or_never()
                .is_none()
        );
        let client = driver.unblock("client", move || UnixStream::connect(path)?.write_all(b"x"));
        let (mut peer, _address) = listener.read_with(UnixListener::accept).await.unwrap();
        client.await.unwrap().unwrap();
        let mut data = Vec::new();
        peer.read_to_end(&mut data).unwrap();
        assert_eq!(data, b"x");
    });
}

#[test]
fn a_regular_file_is_refused_and_left_as_it_is() {
    DefaultPool::run_with(async |driver| {
        let file = tempfile::tempfile().unwrap();
        assert!(driver.polled_fd(file.try_clone().unwrap()).is_err());
        assert!(!is_nonblocking(&file));
    });
}

#[test]
fn a_descriptor_can_be_watched_again_after_its_watch_ended() {
    DefaultPool::run_with(async |driver| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Arc::new(near);
        for n in 0..3 {
            let polled = driver.polled_fd(near.clone()).unwrap();
            // Twice at a time is refused.
            assert!(driver.polled_fd(near.clone()).is_err());
            far.write_all(&[n]).unwrap();
            let mut buffer = [0; 2];
            let len = polled.read_with(|near| (&**near).read(&mut buffer)).await;
            assert_eq!(len.unwrap(), 1);
            assert_eq!(buffer[0], n);
        }
    });
}
