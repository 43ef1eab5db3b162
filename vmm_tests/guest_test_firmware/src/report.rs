//! The report: lines on the serial port that a program can read.
//!
//! `check NAME ok`, `check NAME FAIL expected 0x… found 0x…`, `value NAME 0x…`.

/// Takes the bytes of the report.
pub trait Output {
    /// Takes a byte.
    fn byte(&mut self, byte: u8);
}

/// Writes the report, and counts failures.
pub struct Report<'a> {
    output: &'a mut dyn Output,
    failed: u32,
}

impl<'a> Report<'a> {
    /// A report to `output`.
    pub fn new(output: &'a mut dyn Output) -> Self {
        Self { output, failed: 0 }
    }

    /// How many checks have failed.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Reports whether `found` is `expected`.
    pub fn equal(&mut self, name: &str, expected: u64, found: u64) {
        self.start(name);
        if expected == found {
            self.text(" ok\n");
            return;
        }
        self.failed += 1;
        self.text(" FAIL expected ");
        self.number(expected);
        self.text(" found ");
        self.number(found);
        self.text("\n");
    }

    /// Reports whether something holds, and a value to look at if it does not.
    pub fn holds(&mut self, name: &str, holds: bool, found: u64) {
        self.start(name);
        if holds {
            self.text(" ok\n");
            return;
        }
        self.failed += 1;
        self.text(" FAIL found ");
        self.number(found);
        self.text("\n");
    }

    /// Reports whether a field is there and has the expected value.
    pub fn field(&mut self, name: &str, expected: u64, found: Option<u64>) {
        match found {
            Some(found) => self.equal(name, expected, found),
            None => {
                self.start(name);
                self.failed += 1;
                self.text(" FAIL missing\n");
            }
        }
    }

    /// Reports a value.
    pub fn value(&mut self, name: &str, value: u64) {
        self.text("value ");
        self.text(name);
        self.text(" ");
        self.number(value);
        self.text("\n");
    }

    /// Writes text as it is.
    pub fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.output.byte(byte);
        }
    }

    fn start(&mut self, name: &str) {
        self.text("check ");
        self.text(name);
    }

    fn number(&mut self, value: u64) {
        self.text("0x");
        let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let digit = (value >> (digit * 4) & 0xf) as u8;
            self.output.byte(match digit {
                0..=9 => b'0' + digit,
                _ => b'a' + digit - 10,
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[derive(Default)]
    pub(crate) struct Text(Vec<u8>);

    impl Text {
        pub(crate) fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    impl Output for Text {
        fn byte(&mut self, byte: u8) {
            self.0.push(byte);
        }
    }

    #[test]
    fn lines_have_one_form() {
        let mut text = Text::default();
        let mut report = Report::new(&mut text);
        report.equal("a.b", 1, 1);
        report.equal("a.c", 0x10, 0xabcd_ef01_2345_6789);
        report.holds("d", true, 5);
        report.holds("e", false, 0);
        report.field("f", 3, None);
        report.field("g", 3, Some(3));
        report.value("h", 0xff);
        assert_eq!(report.failed(), 3);
        let expected = [
            "check a.b ok",
            "check a.c FAIL expected 0x10 found 0xabcdef0123456789",
            "check d ok",
            "check e FAIL found 0x0",
            "check f FAIL missing",
            "check g ok",
            "value h 0xff",
        ];
        assert_eq!(text.lines(), expected);
    }
}
