//! The prompt's commands.

use super::inspect;
use openvmm_defs::request::Change;
use serde_json::Value;

/// What the prompt can do to a VM.
pub(crate) trait Control {
    /// Stops the VPs and the guest's clocks.
    fn pause(&self) -> Result<Change, String>;
    /// Lets them go on.
    fn resume(&self) -> Result<Change, String>;
    /// Resets the machine.
    fn reset(&self) -> Result<(), String>;
    /// Presses the power button.
    fn power_button(&self) -> Result<(), String>;
    /// The live tree of the VM's state.
    fn inspect(&self) -> Result<Value, String>;
}

/// The commands, and what they are for.
pub(crate) const COMMANDS: &[(&str, &str)] = &[
    ("help", "list the commands"),
    (
        "pause",
        "stop the virtual processors and the guest's clocks",
    ),
    ("resume", "let them go on"),
    ("reset", "reset the machine and start anew"),
    ("shutdown", "press the power button"),
    ("inspect", "show the VM's state: inspect [PATH] [--json]"),
    ("quit", "end the VM at once"),
];

/// What a command asks of the console.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Show this.
    Print(String),
    /// End the VM.
    Quit,
}

/// Carries out the command in `line`.
pub(crate) fn execute(line: &str, control: &impl Control) -> Outcome {
    let words: Vec<&str> = line.split_whitespace().collect();
    let result = match words.as_slice() {
        [] => Ok(String::new()),
        ["help"] => Ok(help()),
        ["pause"] => control.pause().map(|change| match change {
            Change::Changed => "paused\n".into(),
            Change::Unchanged => "already paused\n".into(),
        }),
        ["resume"] => control.resume().map(|change| match change {
            Change::Changed => "running\n".into(),
            Change::Unchanged => "already running\n".into(),
        }),
        ["reset"] => control.reset().map(|()| "reset\n".into()),
        ["shutdown"] => control
            .power_button()
            .map(|()| "power button pressed\n".into()),
        ["inspect", arguments @ ..] => run_inspect(arguments, control),
        ["quit"] => return Outcome::Quit,
        [name, ..] if COMMANDS.iter().any(|(known, _)| known == name) => {
            Err(format!("{name} takes no arguments"))
        }
        [name, ..] => Err(format!("no command '{name}' (help lists the commands)")),
    };
    Outcome::Print(result.unwrap_or_else(|error| format!("error: {error}\n")))
}

fn help() -> String {
    let mut text: String = COMMANDS
        .iter()
        .map(|(name, purpose)| format!("{name:10} {purpose}\n"))
        .collect();
    text.push_str("Ctrl-Q     back to the guest\n");
    text
}

fn run_inspect(arguments: &[&str], control: &impl Control) -> Result<String, String> {
    let (flags, paths): (Vec<&str>, Vec<&str>) = arguments
        .iter()
        .copied()
        .partition(|word| word.starts_with("--"));
    if let Some(unknown) = flags.iter().find(|flag| **flag != "--json") {
        return Err(format!("no flag '{unknown}' (inspect [PATH] [--json])"));
    }
    let path = match paths.as_slice() {
        [] => "",
        [path] => path,
        _ => return Err("inspect takes one path".into()),
    };
    let tree = control.inspect()?;
    let value = inspect::select(&tree, path).ok_or_else(|| format!("nothing at '{path}'"))?;
    Ok(if flags.is_empty() {
        inspect::render(value)
    } else {
        format!("{value:#}\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::cell::Cell;

    #[derive(Default)]
    struct Recorder {
        paused: Cell<bool>,
        resets: Cell<u32>,
    }

    impl Control for Recorder {
        fn pause(&self) -> Result<Change, String> {
            Ok(if self.paused.replace(true) {
                Change::Unchanged
            } else {
                Change::Changed
            })
        }
        fn resume(&self) -> Result<Change, String> {
            Ok(if self.paused.replace(false) {
                Change::Changed
            } else {
                Change::Unchanged
            })
        }
        fn reset(&self) -> Result<(), String> {
            self.resets.set(self.resets.get() + 1);
            Ok(())
        }
        fn power_button(&self) -> Result<(), String> {
            Err("the VM has halted".into())
        }
        fn inspect(&self) -> Result<Value, String> {
            Ok(json!({"vm": {"state": "running"}}))
        }
    }

    #[test]
    fn commands_reach_the_vm() {
        let vm = Recorder::default();
        let run = |line: &str| execute(line, &vm);
        let print = |text: &str| Outcome::Print(text.into());
        assert_eq!(run(""), print(""));
        assert_eq!(run(" pause "), print("paused\n"));
        assert_eq!(run("pause"), print("already paused\n"));
        assert_eq!(run("resume"), print("running\n"));
        assert_eq!(run("reset"), print("reset\n"));
        assert_eq!(vm.resets.get(), 1);
        assert_eq!(run("shutdown"), print("error: the VM has halted\n"));
        assert_eq!(run("quit"), Outcome::Quit);
    }

    #[test]
    fn inspect_takes_a_path_and_a_form() {
        let vm = Recorder::default();
        let run = |line: &str| match execute(line, &vm) {
            Outcome::Print(text) => text,
            Outcome::Quit => panic!("quit"),
        };
        assert_eq!(run("inspect vm/state"), "running\n");
        assert_eq!(run("inspect vm --json"), "{\n  \"state\": \"running\"\n}\n");
        assert!(run("inspect nothing").contains("'nothing'"));
        assert!(run("inspect --xml").contains("'--xml'"));
        assert!(run("inspect a b").contains("one path"));
    }

    #[test]
    fn unknown_words_are_errors() {
        let vm = Recorder::default();
        assert_eq!(
            execute("halt", &vm),
            Outcome::Print("error: no command 'halt' (help lists the commands)\n".into())
        );
        assert_eq!(
            execute("pause now", &vm),
            Outcome::Print("error: pause takes no arguments\n".into())
        );
        let Outcome::Print(help) = execute("help", &vm) else {
            panic!("no help")
        };
        assert!(COMMANDS.iter().all(|(name, _)| help.contains(name)));
    }
}
