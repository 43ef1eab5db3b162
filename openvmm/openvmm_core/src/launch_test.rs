use super::*;
use crate::machine::test_bench::Files;
use machine_parts::Change;
use machine_parts::LifecycleEvent;
use openvmm_defs::request::RequestError;
use openvmm_defs::request::VmRequest;
use pal_async::block_on;
use serde_json::Value;
use std::sync::mpsc;
use std::time::Duration;
use virt::IrqchipMode;
use virt_fake::FakeHypervisor;
use virt_fake::Step;

fn name(kind: &VmEventKind) -> String {
    match kind {
        VmEventKind::Created => "created".into(),
        VmEventKind::Lifecycle(LifecycleEvent::Halted(reason)) => {
            format!("halted {}", reason.name())
        }
        VmEventKind::Lifecycle(event) => format!("{event:?}").to_lowercase(),
        VmEventKind::PowerButton => "button".into(),
        VmEventKind::SnapshotProgress { .. } => "progress".into(),
        VmEventKind::SnapshotSaved { .. } => "saved".into(),
        VmEventKind::Hibernation(event) => format!("{event:?}"),
    }
}

struct Launched {
    hypervisor: FakeHypervisor,
    vm: VmHandle,
    events: mpsc::Receiver<String>,
}

impl Launched {
    fn new(files: &Files, initial_state: InitialState) -> Self {
        let hypervisor = FakeHypervisor::new();
        let (send, events) = mpsc::channel();
        let options = LaunchOptions {
            console_output: Box::new(io::sink()),
            events: Arc::new(move |event| drop(send.send(name(&event.kind)))),
            vmgs_key: None,
        };
        let start = StartOptions {
            initial_state,
            ..StartOptions::default()
        };
        let config = files.config(files.linux(), IrqchipMode::Kernel);
        let vm = launch(&hypervisor, &config, &start, options).unwrap();
        Self {
            hypervisor,
            vm,
            events,
        }
    }

    #[track_caller]
    fn expect(&self, event: &str) {
        let next = self.events.recv_timeout(Duration::from_secs(20));
        assert_eq!(next.as_deref(), Ok(event));
    }

    fn power_off(&self) {
        let data = vec![0, 0x20];
        let port = 0x604;
        self.hypervisor.push(0, [Step::WritePort { port, data }]);
    }

    fn press(&self) -> Result<(), RequestError> {
        block_on(self.vm.requests.call(VmRequest::PowerButton, ())).unwrap()
    }

    fn resume(&self) -> Result<Change, RequestError> {
        block_on(self.vm.requests.call(VmRequest::Resume, ())).unwrap()
    }

    fn state(&self) -> Value {
        let tree = block_on(self.vm.requests.call(VmRequest::Inspect, ())).unwrap();
        Value::from(tree)["vm"]["state"].clone()
    }
}

#[test]
fn the_worker_answers_in_each_state() {
    let files = Files::new();
    let vm = Launched::new(&files, InitialState::Paused);
    vm.expect("created");
    assert_eq!(vm.state(), "paused");
    assert_eq!(vm.press(), Err(RequestError::Paused));
    assert_eq!(vm.resume(), Ok(Change::Changed));
    vm.expect("started");
    vm.expect("firstinstruction");
    assert_eq!(vm.state(), "running");
    assert_eq!(vm.press(), Ok(()));
    vm.expect("button");
    vm.power_off();
    vm.expect("halted power_off");
    assert_eq!(vm.state(), "halted");
    assert_eq!(vm.press(), Err(RequestError::Halted));
    assert_eq!(vm.resume(), Err(RequestError::Halted));
    block_on(vm.vm.requests.call(VmRequest::Stop, ())).unwrap();
    assert!(block_on(vm.vm.requests.call(VmRequest::Inspect, ())).is_err());
}

#[test]
fn a_vm_can_run_at_once() {
    let files = Files::new();
    let vm = Launched::new(&files, InitialState::Running);
    for event in ["created", "started", "firstinstruction"] {
        vm.expect(event);
    }
    block_on(vm.vm.requests.call(VmRequest::Stop, ())).unwrap();
}
