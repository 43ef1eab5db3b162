//! The old command line, with single-dash options instead of subcommands.

use std::ffi::OsString;

const COMMANDS: [(&[&str], &str); 7] = [
    (&["-c", "-create"], "create"),
    (&["-w", "-write"], "write"),
    (&["-r", "-dump"], "dump"),
    (&["-rh", "-dumpheaders"], "dump-headers"),
    (&["-qs", "-querysize"], "query-size"),
    (&["-uk", "-updatekey"], "update-key"),
    (&["-e", "-encrypt"], "encrypt"),
];

const OPTIONS: [(&[&str], &str); 9] = [
    (&["-f", "-filepath"], "--file-path"),
    (&["-s", "-filesize"], "--file-size"),
    (&["-i", "-fileid"], "--file-id"),
    (&["-d", "-datapath"], "--data-path"),
    (&["-ow", "-allowoverwrite"], "--allow-overwrite"),
    (&["-k", "-keypath"], "--key-path"),
    (&["-n", "-newkeypath"], "--new-key-path"),
    (&["-ea", "-encryptionalgorithm"], "--encryption-algorithm"),
    (&["-fc", "-forcecreate"], "--force-create"),
];

fn lookup(names: &[(&[&str], &'static str)], arg: &OsString) -> Option<&'static str> {
    let arg = arg.to_str()?.to_ascii_lowercase();
    names
        .iter()
        .find(|(old, _)| old.contains(&arg.as_str()))
        .map(|(_, new)| *new)
}

/// Translates the arguments if the first is an old command. Returns whether it is.
pub(crate) fn translate(mut args: Vec<OsString>) -> (Vec<OsString>, bool) {
    let Some(command) = args.get(1).and_then(|arg| lookup(&COMMANDS, arg)) else {
        return (args, false);
    };
    args[1] = command.into();
    for arg in &mut args[2..] {
        if let Some(option) = lookup(&OPTIONS, arg) {
            *arg = option.into();
        }
    }
    (args, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_arguments_are_translated() {
        let args = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let (new, legacy) = translate(args("vmgstool -QuerySize -FilePath a -i 3"));
        assert!(legacy);
        assert_eq!(new, args("vmgstool query-size --file-path a --file-id 3"));
        let (same, legacy) = translate(args("vmgstool dump -f a -d -e"));
        assert!(!legacy);
        assert_eq!(same, args("vmgstool dump -f a -d -e"));
    }
}
