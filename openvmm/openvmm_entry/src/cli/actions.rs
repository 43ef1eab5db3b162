//! The values of `--guest-reset-action`, `--guest-shutdown-action` and `--guest-crash-action`.

use crate::actions::GuestAction;

/// An action, as it is given.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub(super) enum ParsedAction {
    #[default]
    Default,
    Reset,
    Halt,
    Exit(u8),
}

impl From<ParsedAction> for GuestAction {
    fn from(action: ParsedAction) -> Self {
        match action {
            ParsedAction::Default | ParsedAction::Reset => Self::End,
            ParsedAction::Halt => Self::Halt,
            ParsedAction::Exit(code) => Self::Exit(code),
        }
    }
}

/// Reads `reset`, `halt`, `exit` (which is `exit:0`) or `exit:CODE`.
pub(super) fn parse_action(text: &str) -> Result<ParsedAction, String> {
    match (text, text.strip_prefix("exit:")) {
        ("reset", _) => Ok(ParsedAction::Reset),
        ("halt", _) => Ok(ParsedAction::Halt),
        ("exit", _) => Ok(ParsedAction::Exit(0)),
        (_, Some(code)) => match code.parse() {
            Ok(code) => Ok(ParsedAction::Exit(code)),
            Err(_) => Err(format!("'{code}' is not an exit code (0 to 255)")),
        },
        _ => Err(format!(
            "'{text}' is not one of reset, halt, exit, exit:CODE"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_is_read() {
        assert_eq!(parse_action("reset"), Ok(ParsedAction::Reset));
        assert_eq!(parse_action("halt"), Ok(ParsedAction::Halt));
        assert_eq!(parse_action("exit"), Ok(ParsedAction::Exit(0)));
        assert_eq!(parse_action("exit:255"), Ok(ParsedAction::Exit(255)));
        for wrong in ["", "exit:", "exit:256", "exit:-1", "stop"] {
            assert!(parse_action(wrong).is_err(), "{wrong}");
        }
    }
}
