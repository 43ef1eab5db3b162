//! A VM's worker for tests of the console.

use super::SaveProgress;
use super::VmControl;
use openvmm_defs::request::Change;
use openvmm_defs::request::RequestError;
use openvmm_defs::request::SavedSnapshot;
use openvmm_defs::request::VmRequest;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;

/// The requests that a worker got, by name.
pub(crate) type Requests = Arc<Mutex<Vec<&'static str>>>;

/// Starts a thread that answers requests until the control is dropped. The guest takes no power button.
pub(crate) fn worker() -> (VmControl, Requests) {
    let (sender, mut receiver) = mesh::channel();
    let requests = Requests::default();
    let received = requests.clone();
    std::thread::spawn(move || {
        let mut paused = false;
        let mut set_paused = move |value| match std::mem::replace(&mut paused, value) == value {
            true => Ok(Change::Unchanged),
            false => Ok(Change::Changed),
        };
        while let Ok(request) = pal_async::block_on(receiver.recv()) {
            match request {
                VmRequest::Pause(rpc) => {
                    received.lock().push("pause");
                    rpc.handle_sync(|()| set_paused(true));
                }
                VmRequest::Resume(rpc) => {
                    received.lock().push("resume");
                    rpc.handle_sync(|()| set_paused(false));
                }
                VmRequest::Reset(rpc) => {
                    received.lock().push("reset");
                    rpc.handle_sync(|()| Ok(()));
                }
                VmRequest::PowerButton(rpc) => rpc.handle_sync(|()| Err(RequestError::Halted)),
                VmRequest::Inspect(rpc) => {
                    rpc.handle_sync(|()| json!({"vm": {"state": "running"}}).into());
                }
                VmRequest::SaveSnapshot(rpc) => {
                    received.lock().push("save-snapshot");
                    rpc.handle_sync(|_| {
                        Ok(SavedSnapshot {
                            memory: 512 << 20,
                            stored: 85 << 20,
                            paused_ms: 250,
                        })
                    });
                }
                VmRequest::Stop(rpc) => rpc.handle_sync(|()| ()),
            }
        }
    });
    (VmControl::new(sender, SaveProgress::default()), requests)
}

#[test]
fn a_worker_that_ended_is_an_error() {
    let (sender, receiver) = mesh::channel();
    drop(receiver);
    let control = VmControl::new(sender, SaveProgress::default());
    assert_eq!(
        control.try_call(VmRequest::Pause).unwrap_err(),
        "the VM's worker has ended"
    );
}

#[test]
fn progress_is_in_percent() {
    let progress = SaveProgress::default();
    for (done, total, percent) in [
        (0, 0, 0),
        (1, 3, 33),
        (u64::MAX, u64::MAX, 100),
        (9, 3, 100),
    ] {
        progress.set(done, total);
        assert_eq!(progress.percent(), percent);
    }
}
