//! The prompt's line editor, on a terminal.

use super::command::COMMANDS;
use super::command::Control;
use super::inspect;
use rustyline::Cmd;
use rustyline::ConditionalEventHandler;
use rustyline::Config;
use rustyline::Context;
use rustyline::Editor;
use rustyline::Event;
use rustyline::EventContext;
use rustyline::EventHandler;
use rustyline::Helper;
use rustyline::KeyEvent;
use rustyline::RepeatCount;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// What the user did at the prompt.
pub(crate) enum Entered {
    /// Entered a line.
    Line(String),
    /// Gave the line up.
    Nothing,
    /// Wants to go back to the guest.
    Toggle,
}

/// A line editor with history and completion.
pub(crate) struct LineEditor<C: Control> {
    editor: Editor<Completions<C>, MemHistory>,
    toggled: Arc<AtomicBool>,
}

impl<C: Control> LineEditor<C> {
    /// An editor whose completions come from `control`'s VM.
    pub(crate) fn new(control: C) -> Result<Self, ReadlineError> {
        let config = Config::builder().auto_add_history(true).build();
        let mut editor = Editor::with_history(config, MemHistory::new())?;
        editor.set_helper(Some(Completions(control)));
        let toggled = Arc::new(AtomicBool::new(false));
        editor.bind_sequence(
            KeyEvent::ctrl('Q'),
            EventHandler::Conditional(Box::new(Toggle(toggled.clone()))),
        );
        Ok(Self { editor, toggled })
    }

    /// Reads a line.
    pub(crate) fn read_line(&mut self) -> Result<Entered, ReadlineError> {
        self.toggled.store(false, Ordering::Relaxed);
        match self.editor.readline("openvmm> ") {
            Ok(line) => Ok(Entered::Line(line)),
            Err(ReadlineError::Interrupted) if self.toggled.load(Ordering::Relaxed) => {
                Ok(Entered::Toggle)
            }
            Err(ReadlineError::Interrupted) => Ok(Entered::Nothing),
            Err(ReadlineError::Eof) => Ok(Entered::Toggle),
            Err(error) => Err(error),
        }
    }
}

struct Toggle(Arc<AtomicBool>);

impl ConditionalEventHandler for Toggle {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(true, Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

struct Completions<C>(C);

impl<C: Control> Completer for Completions<C> {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line.get(..pos).unwrap_or(line), &self.0))
    }
}

impl<C: Control> Helper for Completions<C> {}
impl<C: Control> Highlighter for Completions<C> {}
impl<C: Control> Hinter for Completions<C> {
    type Hint = String;
}
impl<C: Control> Validator for Completions<C> {}

/// Where the last word of `line` starts, and what may stand there.
fn complete(line: &str, control: &impl Control) -> (usize, Vec<String>) {
    let start = line.rfind(' ').map_or(0, |space| space + 1);
    let word = &line[start..];
    let first = line.split_whitespace().next().unwrap_or("");
    let candidates = if line[..start].trim().is_empty() {
        COMMANDS
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .filter(|name| name.starts_with(word))
            .collect()
    } else if first != "inspect" {
        Vec::new()
    } else if word.starts_with('-') {
        vec!["--json".to_owned()]
    } else {
        control
            .inspect()
            .map(|tree| inspect::completions(&tree, word))
            .unwrap_or_default()
    };
    (start, candidates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openvmm_defs::request::Change;
    use serde_json::Value;
    use serde_json::json;

    struct Fixed;

    impl Control for Fixed {
        fn pause(&self) -> Result<Change, String> {
            Ok(Change::Changed)
        }
        fn resume(&self) -> Result<Change, String> {
            Ok(Change::Changed)
        }
        fn reset(&self) -> Result<(), String> {
            Ok(())
        }
        fn power_button(&self) -> Result<(), String> {
            Ok(())
        }
        fn inspect(&self) -> Result<Value, String> {
            Ok(json!({"vm": {"state": "running"}}))
        }
    }

    #[test]
    fn commands_and_paths_complete() {
        assert_eq!(
            complete("re", &Fixed),
            (0, vec!["resume".into(), "reset".into()])
        );
        assert_eq!(complete("inspect v", &Fixed), (8, vec!["vm/".into()]));
        assert_eq!(
            complete("inspect vm/s", &Fixed),
            (8, vec!["vm/state".into()])
        );
        assert_eq!(
            complete("inspect vm --", &Fixed),
            (11, vec!["--json".into()])
        );
        assert_eq!(complete("pause v", &Fixed).1, Vec::<String>::new());
    }
}
