//! The host's limits for the process.

use rustix::io::Errno;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use std::error::Error;
use std::io;

/// Raises the limit of open files to what the host permits. Each queue of a device needs several, and the default of most
/// hosts (1024) is for programs that use `select`.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
}

/// Whether an error comes from a limit of the host, which no other configuration avoids: files, memory, disk space or
/// threads.
pub(crate) fn is_host_limit(error: &(dyn Error + 'static)) -> bool {
    let limits = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
        Errno::AGAIN,
    ];
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        let code = match error.downcast_ref::<io::Error>() {
            Some(error) => error.raw_os_error(),
            None => error
                .downcast_ref::<Errno>()
                .map(|errno| errno.raw_os_error()),
        };
        code.is_some_and(|code| limits.iter().any(|limit| limit.raw_os_error() == code))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_the_hard_one() {
        let limit = getrlimit(Resource::Nofile);
        let lower = Rlimit {
            current: limit.maximum.map(|maximum| maximum / 2),
            ..limit
        };
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }

    #[test]
    fn a_limit_is_found_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot build disk0")]
        struct Outer(#[source] io::Error);
        for (errno, expected) in [
            (Errno::MFILE, true),
            (Errno::NOSPC, true),
            (Errno::NOENT, false),
            (Errno::ACCESS, false),
        ] {
            let error = Outer(errno.into());
            assert_eq!(is_host_limit(&error), expected, "{errno}");
        }
        assert!(is_host_limit(&Errno::NFILE));
        assert!(!is_host_limit(&io::Error::other("no room")));
    }
}
