//! Stopping a VP from any thread: a flag for the run loop, and a signal that makes KVM_RUN return.
//!
//! A vCPU that is about to enter the guest would miss the flag. The signal's handler therefore sets the run page's
//! `immediate_exit`, which KVM checks after it has begun to notice signals, so that no order of events loses a kick.
#![allow(
    unsafe_code,
    reason = "signal handlers and thread ids have no safe interface"
)]

use crate::run_page::RunPage;
use parking_lot::Mutex;
use std::cell::Cell;
use std::io;
use std::ptr::null;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use virt::VpKick;
use vmm_sys_util::signal::SIGRTMIN;
use vmm_sys_util::signal::unblock_signal;

thread_local! {
    /// `immediate_exit` of the VP that this thread runs now, for the signal handler. Without destructor or
    /// lazy initializer, so that a signal handler may use it.
    static IMMEDIATE_EXIT: Cell<*const AtomicU8> = const { Cell::new(null()) };
}

fn on_kick() {
    let immediate_exit = IMMEDIATE_EXIT.get();
    if !immediate_exit.is_null() {
        // SAFETY: the pointer is set only while `Running` borrows the run page.
        unsafe { (*immediate_exit).store(1, Ordering::Relaxed) };
    }
}

/// Installs the handler, once in the process.
fn install_handler() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if !*installed {
        // Restarts calls of the device models, which run on the same thread. KVM_RUN returns anyway.
        // SAFETY: the handler does nothing but store a byte.
        unsafe { signal_hook::low_level::register(SIGRTMIN(), on_kick) }?;
        *installed = true;
    }
    Ok(())
}

/// A VP's stop flag, and the thread to signal.
#[derive(Default)]
pub(crate) struct Kick {
    requested: AtomicBool,
    thread: Mutex<Option<libc::pthread_t>>,
}

impl Kick {
    /// Whether the VP is to stop.
    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// The VP has stopped.
    pub(crate) fn clear(&self) {
        self.requested.store(false, Ordering::Release);
    }

    /// Makes the calling thread the one to signal.
    pub(crate) fn bind(&self) -> io::Result<()> {
        install_handler()?;
        // Whatever mask the thread was started with.
        unblock_signal(SIGRTMIN()).map_err(|e| io::Error::other(e.to_string()))?;
        // SAFETY: pthread_self has no preconditions.
        *self.thread.lock() = Some(unsafe { libc::pthread_self() });
        Ok(())
    }

    /// There is no thread to signal any more.
    pub(crate) fn unbind(&self) {
        *self.thread.lock() = None;
    }
}

impl VpKick for Kick {
    fn kick(&self) {
        // Whoever set the flag before has signalled, or is about to.
        if self.requested.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(thread) = *self.thread.lock() {
            // SAFETY: the thread unbinds, which takes the lock, before it ends. On the VP's own thread no
            // signal is needed: the run loop looks at the flag before it enters the guest again.
            unsafe {
                if libc::pthread_equal(thread, libc::pthread_self()) == 0 {
                    libc::pthread_kill(thread, SIGRTMIN());
                }
            }
        }
    }
}

/// Marks the calling thread as running a VP, so that the signal stops that VP.
pub(crate) struct Running<'a> {
    _page: &'a RunPage,
}

impl<'a> Running<'a> {
    pub(crate) fn new(page: &'a RunPage) -> Self {
        IMMEDIATE_EXIT.set(page.immediate_exit());
        Self { _page: page }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null());
    }
}
