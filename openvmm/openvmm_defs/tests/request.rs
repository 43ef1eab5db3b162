//! Requests to a worker behind a socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use mesh::InspectTree;
use openvmm_defs::request::Change;
use openvmm_defs::request::RequestError;
use openvmm_defs::request::SaveSnapshot;
use openvmm_defs::request::SavedSnapshot;
use openvmm_defs::request::VmRequest;
use pal_async::DefaultPool;

#[test]
fn a_worker_may_be_in_another_process() {
    DefaultPool::run_with(async |driver| {
        let (here, there) = mesh_remote::socket_pair().unwrap();
        let (vm, _sending) = mesh_remote::sender(&driver, here).unwrap();
        let (mut requests, _receiving) = mesh_remote::receiver(&driver, there).unwrap();
        let failed = RequestError::Failed("no reset".to_owned().into());
        let saved = SavedSnapshot {
            memory: 1 << 30,
            stored: 4096,
            paused_ms: 3,
        };
        let tree = InspectTree::Object(vec![("vm".to_owned(), InspectTree::Unsigned(1))]);
        let worker = driver.spawn("worker", {
            let (failed, tree) = (failed.clone(), tree.clone());
            async move {
                while let Ok(request) = requests.recv().await {
                    match request {
                        VmRequest::Pause(rpc) => rpc.handle_sync(|()| Ok(Change::Changed)),
                        VmRequest::Resume(rpc) => rpc.handle_sync(|()| Ok(Change::Unchanged)),
                        VmRequest::Reset(rpc) => rpc.handle_sync(|()| Err(failed.clone())),
                        VmRequest::PowerButton(rpc) => {
                            rpc.handle_sync(|()| Err(RequestError::Paused));
                        }
                        VmRequest::Inspect(rpc) => rpc.handle_sync(|()| tree.clone()),
                        VmRequest::SaveSnapshot(rpc) => rpc.handle_sync(|SaveSnapshot { dir }| {
                            assert_eq!(dir.to_str(), Some("/snapshot"));
                            Ok(saved)
                        }),
                        VmRequest::Stop(rpc) => return rpc.complete(()),
                    }
                }
            }
        });
        assert_eq!(vm.call(VmRequest::Pause, ()).await, Ok(Ok(Change::Changed)));
        assert_eq!(
            vm.call(VmRequest::Resume, ()).await,
            Ok(Ok(Change::Unchanged))
        );
        assert_eq!(vm.call(VmRequest::Reset, ()).await, Ok(Err(failed)));
        assert_eq!(
            vm.call(VmRequest::PowerButton, ()).await,
            Ok(Err(RequestError::Paused))
        );
        assert_eq!(vm.call(VmRequest::Inspect, ()).await, Ok(tree));
        let request = SaveSnapshot {
            dir: "/snapshot".into(),
        };
        assert_eq!(
            vm.call(VmRequest::SaveSnapshot, request).await,
            Ok(Ok(saved))
        );
        assert_eq!(vm.call(VmRequest::Stop, ()).await, Ok(()));
        worker.await.unwrap();
    });
}
