//! The prompt's line editor, on a terminal.

use super::command::COMMANDS;
use super::inspect;
use super::terminal_console::Screen;
use crate::control::VmControl;
use rustyline::Behavior;
use rustyline::Cmd;
use rustyline::ConditionalEventHandler;
use rustyline::Config;
use rustyline::Context;
use rustyline::Editor;
use rustyline::Event;
use rustyline::EventContext;
use rustyline::EventHandler;
use rustyline::Helper;
use rustyline::Highlighter;
use rustyline::Hinter;
use rustyline::KeyEvent;
use rustyline::RepeatCount;
use rustyline::Validator;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// What the user entered at the prompt.
pub(crate) enum PromptInput {
    /// A line.
    Line(String),
    /// Ctrl-C: the line is discarded.
    Canceled,
    /// Ctrl-Q or Ctrl-D: back to the guest.
    Toggle,
    /// Ctrl-Z: stop the process, as a shell's job.
    Suspend,
}

/// A line editor with history and completion.
pub(crate) struct LineEditor {
    editor: Editor<Completions, MemHistory>,
    toggled: Flag,
    suspended: Flag,
}

impl LineEditor {
    /// Creates an editor that completes paths in the state of `control`'s VM.
    pub(super) fn new(control: VmControl, screen: &Screen) -> Result<Self, ReadlineError> {
        let behavior = match screen {
            Screen::Stdout => Behavior::Stdio,
            Screen::Terminal(_) => Behavior::PreferTerm,
        };
        let config = Config::builder()
            .auto_add_history(true)
            .behavior(behavior)
            .build();
        let mut editor = Editor::with_history(config, MemHistory::new())?;
        editor.set_helper(Some(Completions(control)));
        let (toggled, suspended) = (Flag::default(), Flag::default());
        // The editor would stop the process itself, without giving the terminal back.
        for (key, flag) in [('Q', &toggled), ('Z', &suspended)] {
            editor.bind_sequence(
                KeyEvent::ctrl(key),
                EventHandler::Conditional(Box::new(flag.clone())),
            );
        }
        Ok(Self {
            editor,
            toggled,
            suspended,
        })
    }

    /// Reads a line.
    pub(crate) fn read_line(&mut self) -> Result<PromptInput, ReadlineError> {
        match self.editor.readline("openvmm> ") {
            Ok(line) => Ok(PromptInput::Line(line)),
            Err(ReadlineError::Interrupted) if self.toggled.take() => Ok(PromptInput::Toggle),
            Err(ReadlineError::Interrupted) if self.suspended.take() => Ok(PromptInput::Suspend),
            Err(ReadlineError::Interrupted) => Ok(PromptInput::Canceled),
            Err(ReadlineError::Eof) => Ok(PromptInput::Toggle),
            Err(error) => Err(error),
        }
    }
}

/// Whether a key was pressed, which also ends the line.
#[derive(Clone, Default)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl ConditionalEventHandler for Flag {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(true, Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

#[derive(Helper, Highlighter, Hinter, Validator)]
struct Completions(VmControl);

impl Completer for Completions {
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

/// Returns where the last word of `line` starts, and the candidates for it.
fn complete(line: &str, control: &VmControl) -> (usize, Vec<String>) {
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
    use crate::control::tests::worker;

    #[test]
    fn commands_and_paths_complete() {
        let (vm, _) = worker();
        assert_eq!(
            complete("re", &vm),
            (0, vec!["resume".into(), "reset".into()])
        );
        assert_eq!(complete("inspect v", &vm), (8, vec!["vm/".into()]));
        assert_eq!(complete("inspect vm/s", &vm), (8, vec!["vm/state".into()]));
        assert_eq!(complete("inspect vm --", &vm), (11, vec!["--json".into()]));
        assert_eq!(complete("pause v", &vm).1, Vec::<String>::new());
    }
}
