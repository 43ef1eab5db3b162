use super::*;
use crate::control::tests::worker;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;

struct Client(BufReader<UnixStream>);

impl Client {
    fn new(path: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(path).unwrap()))
    }

    fn send(&mut self, text: &str) -> Value {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

fn served(path: &Path) -> (ControlPath, mpsc::Receiver<()>) {
    let (control, _) = worker();
    let (send, quit) = mpsc::channel();
    let socket = ControlSocket::listen(path).unwrap();
    let quits: Quit = Arc::new(move || {
        let _ = send.send(());
    });
    (socket.serve(control, quits).unwrap(), quit)
}

#[test]
fn requests_are_answered_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let (name, quit) = served(&path);
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::new(&path);
    for (request, reply) in [
        (
            r#"{"id":1,"command":"status"}"#,
            json!({"id": 1, "result": {"state": "running"}}),
        ),
        (
            r#"{"command":"pause"}"#,
            json!({"id": null, "result": {"changed": true}}),
        ),
        (
            r#"{"command":"pause"}"#,
            json!({"id": null, "result": {"changed": false}}),
        ),
        (
            r#"{"id":"x","command":"resume"}"#,
            json!({"id": "x", "result": {"changed": true}}),
        ),
        (r#"{"command":"reset"}"#, json!({"id": null, "result": {}})),
        (
            r#"{"command":"shutdown"}"#,
            json!({"id": null, "error": "the VM has halted"}),
        ),
        (
            r#"{"command":"save-snapshot","dir":"/s"}"#,
            json!({"id": null, "result": {
                "memory_bytes": 512 << 20, "stored_bytes": 85 << 20, "paused_ms": 250
            }}),
        ),
        (
            r#"{"command":"inspect","path":"vm/state"}"#,
            json!({"id": null, "result": "running"}),
        ),
        (
            r#"{"command":"inspect","path":"x"}"#,
            json!({"id": null, "error": "nothing at 'x'"}),
        ),
    ] {
        assert_eq!(client.send(&format!("{request}\n")), reply, "{request}");
    }
    client.send("{\"command\":\"quit\"}\n");
    quit.recv().unwrap();
    name.remove();
    assert!(!path.exists());
}

#[test]
fn what_is_no_request_is_an_error_and_harms_no_other_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let _name = served(&path);
    let mut other = Client::new(&path);
    let mut client = Client::new(&path);
    for text in [
        "",
        "null",
        "{}",
        "{\"command\":\"fly\"}",
        "{\"command\":\"save-snapshot\"}",
        "\u{7f}",
    ] {
        let reply = client.send(&format!("{text}\n"));
        assert!(
            reply["error"]
                .as_str()
                .unwrap()
                .starts_with("not a request"),
            "{text}: {reply}"
        );
    }
    let reply = client.send(&"x".repeat(MAX_REQUEST as usize));
    assert!(
        reply["error"].as_str().unwrap().contains("at most"),
        "{reply}"
    );
    let mut rest = String::new();
    assert_eq!(client.0.read_line(&mut rest).unwrap_or(0), 0);
    assert_eq!(
        other.send("{\"command\":\"status\"}\n")["result"]["state"],
        "running"
    );
}

#[test]
fn only_a_socket_that_nobody_listens_at_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let first = ControlSocket::listen(&path).unwrap();
    assert!(ControlSocket::listen(&path).is_err());
    // As after a process that was killed.
    let ControlSocket {
        listener,
        path: name,
    } = first;
    drop(listener);
    let second = ControlSocket::listen(&path).unwrap();
    std::mem::forget(name);
    drop(second);
    assert!(!path.exists());
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(ControlSocket::listen(&file).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}
