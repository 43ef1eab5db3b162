//! An error with all of its causes, on one line.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

/// Shows an error and its causes, outermost first, with colons between them.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn causes_follow_their_effects() {
        let cause = |name, cause| Layer(name, Some(Box::new(cause)));
        let error = cause("cannot start", cause("cannot read F", Layer("EIO", None)));
        assert_eq!(
            Chain(&error).to_string(),
            "cannot start: cannot read F: EIO"
        );
        assert_eq!(Chain(&Layer("alone", None)).to_string(), "alone");
    }
}
