//! What hibernation writes to the log.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use support::*;
use tracing::Event;
use tracing::Metadata;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing::span;

/// The fields of a line, with their values.
#[derive(Debug, PartialEq)]
struct Fields(Vec<(String, String)>);

/// Collects the lines of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Fields>>>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_warning_says_once_what_happened() {
    let log = Log::default();
    let heard = Heard::default();
    tracing::subscriber::with_default(log.clone(), || {
        let config = Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap();
        let mut vm = HibernationEngine::new(config, Architecture::X86_64, None, heard.sink());
        start(&mut vm, 1).unwrap();
    });
    let [event] = &heard.take()[..] else {
        panic!("one event");
    };
    let expected = Fields(vec![("message".to_owned(), event.to_string())]);
    assert_eq!(*log.0.lock().unwrap(), [expected]);
}
