//! The prompt's commands.

use super::inspect;
use crate::control::VmControl;
use openvmm_defs::request::Change;
use openvmm_defs::request::SaveSnapshot;
use openvmm_defs::request::SavedSnapshot;
use openvmm_defs::request::VmRequest;
use std::time::Duration;

/// The commands and their purpose.
pub(crate) const COMMANDS: &[(&str, &str)] = &[
    ("help", "list the commands"),
    (
        "pause",
        "stop the virtual processors and the guest's clocks",
    ),
    ("resume", "continue after pause"),
    ("reset", "reset the machine, which boots again"),
    ("shutdown", "press the power button"),
    (
        "save-snapshot",
        "save the VM to a new directory: save-snapshot DIR",
    ),
    ("inspect", "show the VM's state: inspect [PATH] [--json]"),
    ("quit", "end the VM at once"),
];

/// How often progress is shown.
const REFRESH: Duration = Duration::from_millis(100);

/// What saving needs, and does.
const SAVE_SNAPSHOT_HELP: &str = "\
save-snapshot: DIR must not exist, and its parent must. Any kind of guest memory can be saved. Disks are not part of the
snapshot and must be files (not mem: or memdiff:); what the guest writes to them afterwards makes the snapshot unusable,
unless copies from now are kept. The guest is paused meanwhile and goes on then. openvmm --restore-snapshot DIR goes on
from there, any number of times.
";

/// What the console does after a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CommandResult {
    /// Print this text.
    Print(String),
    /// End the VM.
    Quit,
}

/// Executes the command in `line`. What takes time shows its progress by `show`, on one line.
pub(crate) fn execute(
    line: &str,
    control: &VmControl,
    show: &mut dyn FnMut(&str),
) -> CommandResult {
    let words: Vec<&str> = line.split_whitespace().collect();
    let result = match words.as_slice() {
        ["save-snapshot", ..] => {
            // The directory may have spaces in its name.
            let dir = line.trim().trim_start_matches("save-snapshot").trim();
            save_snapshot(dir, control, show)
        }
        [] => Ok(String::new()),
        ["help"] => Ok(help()),
        ["pause"] => control
            .try_call(VmRequest::Pause)
            .map(|change| match change {
                Change::Changed => "paused\n".into(),
                Change::Unchanged => "already paused\n".into(),
            }),
        ["resume"] => control
            .try_call(VmRequest::Resume)
            .map(|change| match change {
                Change::Changed => "running\n".into(),
                Change::Unchanged => "already running\n".into(),
            }),
        ["reset"] => control
            .try_call(VmRequest::Reset)
            .map(|()| "reset\n".into()),
        ["shutdown"] => control
            .try_call(VmRequest::PowerButton)
            .map(|()| "power button pressed\n".into()),
        ["inspect", arguments @ ..] => run_inspect(arguments, control),
        ["quit"] => return CommandResult::Quit,
        [name, ..] if COMMANDS.iter().any(|(known, _)| known == name) => {
            Err(format!("{name} takes no arguments"))
        }
        [name, ..] => Err(format!(
            "unknown command '{name:.40}' (help lists the commands)"
        )),
    };
    CommandResult::Print(result.unwrap_or_else(|error| format!("error: {error}\n")))
}

fn help() -> String {
    let mut text: String = COMMANDS
        .iter()
        .map(|(name, purpose)| format!("{name:13} {purpose}\n"))
        .collect();
    text.push_str("Ctrl-Q        back to the guest\n");
    text.push_str(SAVE_SNAPSHOT_HELP);
    text
}

/// Saves the VM. Blocks until it is saved.
fn save_snapshot(
    dir: &str,
    control: &VmControl,
    show: &mut dyn FnMut(&str),
) -> Result<String, String> {
    if dir.is_empty() {
        return Err("save-snapshot needs the name of a new directory: save-snapshot DIR".into());
    }
    let dir = std::path::absolute(dir).map_err(|error| format!("cannot use {dir}: {error}"))?;
    let request = SaveSnapshot { dir: dir.clone() };
    control.progress().set(0, 1);
    let saved = std::thread::scope(|scope| {
        let saving = scope.spawn(|| control.try_request(VmRequest::SaveSnapshot, request));
        let mut shown = false;
        loop {
            std::thread::sleep(REFRESH);
            if saving.is_finished() {
                break;
            }
            show(&format!("\rsaving: {:3} %", control.progress().percent()));
            shown = true;
        }
        if shown {
            show("\r             \r");
        }
        saving.join()
    });
    let saved = match saved {
        Ok(saved) => saved?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let SavedSnapshot {
        memory,
        stored,
        paused_ms,
    } = saved;
    Ok(format!(
        "saved to {}: {} MiB of memory, of which {} MiB are stored; the guest was paused for {paused_ms} ms\n",
        dir.display(),
        memory >> 20,
        stored.div_ceil(1 << 20),
    ))
}

fn run_inspect(arguments: &[&str], control: &VmControl) -> Result<String, String> {
    let (flags, paths): (Vec<&str>, Vec<&str>) = arguments
        .iter()
        .copied()
        .partition(|word| word.starts_with("--"));
    if let Some(unknown) = flags.iter().find(|flag| **flag != "--json") {
        return Err(format!(
            "unknown flag '{unknown}' (usage: inspect [PATH] [--json])"
        ));
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
    use crate::control::tests::worker;

    #[test]
    fn commands_reach_the_vm() {
        let (vm, requests) = worker();
        let run = |line: &str| execute(line, &vm, &mut |_| {});
        let print = |text: &str| CommandResult::Print(text.into());
        assert_eq!(run(""), print(""));
        assert_eq!(run(" pause "), print("paused\n"));
        assert_eq!(run("pause"), print("already paused\n"));
        assert_eq!(run("resume"), print("running\n"));
        assert_eq!(run("reset"), print("reset\n"));
        assert_eq!(*requests.lock(), ["pause", "pause", "resume", "reset"]);
        assert_eq!(run("shutdown"), print("error: the VM has halted\n"));
        assert_eq!(run("quit"), CommandResult::Quit);
    }

    #[test]
    fn a_snapshot_is_saved_to_a_directory() {
        let (vm, requests) = worker();
        let run = |line: &str| match execute(line, &vm, &mut |_| {}) {
            CommandResult::Print(text) => text,
            CommandResult::Quit => panic!("quit"),
        };
        assert_eq!(
            run(" save-snapshot /tmp/my snapshot "),
            "saved to /tmp/my snapshot: 512 MiB of memory, of which 85 MiB are stored; the guest was paused for 250 ms\n"
        );
        assert_eq!(*requests.lock(), ["save-snapshot"]);
        assert!(run("save-snapshot").contains("needs the name"));
    }

    #[test]
    fn inspect_takes_a_path_and_json() {
        let (vm, _) = worker();
        let run = |line: &str| match execute(line, &vm, &mut |_| {}) {
            CommandResult::Print(text) => text,
            CommandResult::Quit => panic!("quit"),
        };
        assert_eq!(run("inspect vm/state"), "running\n");
        assert_eq!(run("inspect vm --json"), "{\n  \"state\": \"running\"\n}\n");
        assert!(run("inspect nothing").contains("'nothing'"));
        assert!(run("inspect --xml").contains("'--xml'"));
        assert!(run("inspect a b").contains("one path"));
    }

    #[test]
    fn unknown_commands_and_arguments_are_errors() {
        let (vm, _) = worker();
        assert_eq!(
            execute("halt", &vm, &mut |_| {}),
            CommandResult::Print(
                "error: unknown command 'halt' (help lists the commands)\n".into()
            )
        );
        let long = execute(&"x".repeat(100_000), &vm, &mut |_| {});
        assert!(
            matches!(&long, CommandResult::Print(text) if text.len() < 100),
            "{long:?}"
        );
        assert_eq!(
            execute("pause now", &vm, &mut |_| {}),
            CommandResult::Print("error: pause takes no arguments\n".into())
        );
        let CommandResult::Print(help) = execute("help", &vm, &mut |_| {}) else {
            panic!("no help")
        };
        assert!(COMMANDS.iter().all(|(name, _)| help.contains(name)));
    }
}
