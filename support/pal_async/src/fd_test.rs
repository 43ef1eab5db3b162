use super::*;
use crate::DefaultPool;
use futures::FutureExt;
use rustix::fs::OFlags;
use rustix::fs::fcntl_getfl;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[test]
fn a_socket_is_readable_when_there_is_data() {
    DefaultPool::run_with(async |driver| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = driver.polled_fd(near).unwrap();
        assert!(is_nonblocking(near.get()));
        let mut buffer = [0; 16];
        assert!(near.readable().now_or_never().is_none());
        assert!(near.read(&mut buffer).now_or_never().is_none());
        near.writable().await.unwrap();
        far.write_all(b"hello").unwrap();
        near.readable().await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        drop(far);
        near.readable().await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 0);
        assert!(near.write(b"x").await.is_err());
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
            async move { near.write_all(&sent).await }
        });
        let mut received = Vec::new();
        let mut buffer = vec![0; 10000];
        loop {
            let len = far.read(&mut buffer).await.unwrap();
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
fn a_shared_descriptor_keeps_its_flags_and_does_not_block() {
    DefaultPool::run_with(async |driver| {
        let (reader, writer) = io::pipe().unwrap();
        let reader = PolledFd::new_shared(&driver, reader).unwrap();
        let writer = PolledFd::new_shared(&driver, writer).unwrap();
        assert!(!is_nonblocking(reader.get()));
        let mut buffer = vec![0; 10000];
        assert!(reader.read(&mut buffer).now_or_never().is_none());
        // Far more than the pipe holds; one thread does both.
        let sent = vec![5; 1 << 20];
        let task = driver.spawn("writer", {
            let sent = sent.clone();
            async move { writer.write_all(&sent).await }
        });
        let mut received = Vec::new();
        loop {
            let len = reader.read(&mut buffer).await.unwrap();
            if len == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..len]);
        }
        task.await.unwrap().unwrap();
        assert!(received == sent);
    });
}

#[test]
fn a_regular_file_is_read_and_written_by_the_blocking_pool() {
    DefaultPool::run_with(async |driver| {
        for open in [PolledFd::new, PolledFd::new_shared] {
            let mut file = tempfile::tempfile().unwrap();
            let polled = open(&driver, file.try_clone().unwrap()).unwrap();
            assert!(matches!(polled.watch, Watch::File));
            assert!(!is_nonblocking(polled.get()));
            polled.readable().await.unwrap();
            polled.writable().await.unwrap();
            // More than a chunk.
            let data = vec![3; FILE_CHUNK + 10];
            polled.write_all(&data).await.unwrap();
            assert_eq!(file.metadata().unwrap().len(), data.len() as u64);

            file.rewind().unwrap();
            let mut buffer = vec![0; data.len()];
            let len = polled.read(&mut buffer).await.unwrap();
            assert!(len > 0 && buffer[..len] == data[..len]);
            file.seek(io::SeekFrom::End(0)).unwrap();
            assert_eq!(polled.read(&mut buffer).await.unwrap(), 0);
            let len = polled
                .read_with(|file| Ok(file.metadata()?.len()))
                .await
                .unwrap();
            assert_eq!(len, data.len() as u64);
        }
    });
}

#[test]
fn errors_of_files_arrive() {
    DefaultPool::run_with(async |driver| {
        let path = tempfile::NamedTempFile::new().unwrap();
        let read_only = driver
            .polled_fd(std::fs::File::open(path.path()).unwrap())
            .unwrap();
        let error = read_only.write_all(b"x").await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
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
            assert_eq!(polled.read(&mut buffer).await.unwrap(), 1);
            assert_eq!(buffer[0], n);
        }
    });
}
