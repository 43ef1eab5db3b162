//! Signals that would stop or end the process while the guest has the terminal.
//!
//! SIGTERM, SIGINT and SIGHUP stop the VM and are handled elsewhere. Every other signal that ends a process gives the
//! terminal back first, and then does what it always does.
#![allow(
    unsafe_code,
    reason = "handlers run in place of the thread that a signal interrupts"
)]

use super::CHANGED;
use super::ORIGINAL;
use super::Settings;
use super::give_back;
use super::in_foreground;
use rustix::termios::OptionalActions;
use std::ffi::c_int;
use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// The signals that end a process by default and are not handled elsewhere. The real-time signals are added to them.
const FATAL: [c_int; 17] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGUSR1,
    libc::SIGSEGV,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
];

/// The last signal.
const LAST: c_int = 64;

/// How the standard library handles SIGSEGV and SIGBUS: it reports an overflow of the stack.
static OVERFLOW_REPORTS: [OnceLock<libc::sigaction>; 2] = [OnceLock::new(), OnceLock::new()];

/// The signals that were ignored when the process started.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Ignored(u64);

impl Ignored {
    /// Asks the kernel. Call it before anything handles a signal.
    pub(crate) fn at_start() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Self(mask.unwrap_or(0))
    }

    /// Whether this signal was ignored.
    pub(crate) fn has(self, signal: c_int) -> bool {
        (1..=LAST).contains(&signal) && self.0 >> (signal - 1) & 1 == 1
    }
}

/// Installs the handlers, except of signals that are ignored. Call it before the process has other threads.
pub(crate) fn install(ignored: Ignored) -> io::Result<()> {
    block_job_control()?;
    // A file that would become too large (RLIMIT_FSIZE) is then an error of the write.
    handle(libc::SIGXFSZ, nothing, ignored)?;
    handle(libc::SIGTSTP, suspend, ignored)?;
    for (signal, report) in [libc::SIGSEGV, libc::SIGBUS]
        .into_iter()
        .zip(&OVERFLOW_REPORTS)
    {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action this only fills `action`, for which all zeroes are valid.
        let action = unsafe {
            check(libc::sigaction(
                signal,
                std::ptr::null(),
                action.as_mut_ptr(),
            ))?;
            action.assume_init()
        };
        let _ = report.set(action);
    }
    // The first real-time signal interrupts VPs.
    let real_time = libc::SIGRTMIN() + 1..=LAST;
    for signal in FATAL.into_iter().chain(real_time) {
        handle(signal, end, ignored)?;
    }
    Ok(())
}

/// Without this, a process in the background would be stopped when it reads the terminal, which can come to the
/// foreground or leave it at any time. Blocked, such a read is an error.
fn block_job_control() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes the set that the other calls use.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTTIN);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), null_mut())
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

fn handle(signal: c_int, handler: Handler, ignored: Ignored) -> io::Result<()> {
    if ignored.has(signal) {
        return Ok(());
    }
    // SAFETY: all zeroes are a valid action without a handler.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as *const () as usize;
    // On the alternate stack, for a thread whose own has overflowed.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the action is complete, and its handler makes only calls that are allowed in one: system calls, and atomic
    // loads and stores.
    check(unsafe { libc::sigaction(signal, &action, null_mut()) })
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

/// Gives the terminal back, stops the process, and takes the terminal again if it is continued in the foreground.
extern "C" fn suspend(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    let stdin = rustix::stdio::stdin();
    let ours = match super::is_ours() {
        true => rustix::termios::tcgetattr(stdin).ok(),
        false => None,
    };
    give_back();
    // SAFETY: allowed in a handler. It returns when the process is continued.
    unsafe { libc::raise(libc::SIGSTOP) };
    if let Some(ours) = ours
        && in_foreground()
        && let Ok(mut termios) = rustix::termios::tcgetattr(stdin)
    {
        ORIGINAL.store(Settings::of(&termios));
        CHANGED.store(true, Ordering::SeqCst);
        Settings::of(&ours).put(&mut termios);
        let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &termios);
    }
}

/// Gives the terminal back and ends the process by the signal.
extern "C" fn end(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    give_back();
    // SAFETY: the kernel passes a valid pointer, because of SA_SIGINFO. Codes above 0 are those of the kernel.
    let by_fault = unsafe { (*info).si_code } > 0;
    let report = match signal {
        libc::SIGSEGV => OVERFLOW_REPORTS[0].get(),
        libc::SIGBUS => OVERFLOW_REPORTS[1].get(),
        _ => None,
    };
    if by_fault && let Some(report) = report {
        // The thread faults again when this returns.
        // SAFETY: this action was the signal's before.
        unsafe { libc::sigaction(signal, report, null_mut()) };
        return;
    }
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: all of these are allowed in a handler, and `sigemptyset` initializes the set.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), null_mut());
        libc::raise(signal);
    }
}
