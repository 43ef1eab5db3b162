use super::*;
use zerocopy::IntoBytes as _;

fn entry(level: DebugLevel, text: &[u8]) -> Vec<u8> {
    let header = LogEntryHeader {
        signature: LogEntryHeader::SIGNATURE,
        level: level.0.into(),
        timestamp: 170.into(),
        phase: 4.into(),
        text_len: (text.len() as u16).into(),
        text_offset: 24.into(),
        ..LogEntryHeader::default()
    };
    let mut bytes = [header.as_bytes(), text].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0xee);
    bytes
}

fn texts(lines: &Lines) -> Vec<&str> {
    lines.lines.iter().map(|line| &*line.text).collect()
}

#[test]
fn lines_are_put_together_and_filtered() {
    let log = [
        entry(DebugLevel::ERROR, b"one "),
        entry(DebugLevel::ERROR, b"line\nand "),
        entry(DebugLevel::ERROR, b"another\r\n"),
        entry(DebugLevel::INFO, b"information\n"),
        entry(DebugLevel::VERBOSE, b"details\n"),
        entry(DebugLevel::WARN, b"\x1b[2J\xff"),
    ]
    .concat();
    let lines = parse(&log, LogLevel::Default);
    let cleaned = "\u{fffd}[2J\u{fffd}";
    assert_eq!(texts(&lines), ["one line", "and another", cleaned]);
    assert_eq!(lines.lines[0].phase.name(), "DXE");
    assert_eq!(lines.lines[0].timestamp, 170);
    assert!(!lines.is_malformed);
    assert_eq!(parse(&log, LogLevel::Info).lines.len(), 4);
    assert_eq!(parse(&log, LogLevel::Full).lines.len(), 5);
}

#[test]
fn the_last_lines_are_kept_of_a_long_log() {
    let mut log = Vec::new();
    for n in 0..MAX_LINES + 5 {
        log.extend(entry(DebugLevel::ERROR, format!("line {n}\n").as_bytes()));
    }
    let lines = parse(&log, LogLevel::Default);
    assert_eq!((lines.lines.len(), lines.suppressed), (MAX_LINES, 5));
    assert_eq!(lines.lines[0].text, "line 5");
    let endless = entry(DebugLevel::ERROR, &[b'x'; 2048]).repeat(5);
    let lines = parse(&endless, LogLevel::Default);
    let lengths: Vec<_> = lines.lines.iter().map(|line| line.text.len()).collect();
    assert_eq!(lengths, [4096, 4096, 2048]);
}

#[test]
fn a_malformed_entry_ends_the_log() {
    let good = entry(DebugLevel::ERROR, b"good\n");
    for (at, value) in [(0, b'X'), (20, 200), (21, 0x20), (22, 23), (23, 0xff)] {
        let mut bad = good.clone();
        bad[at] = value;
        let lines = parse(&[good.clone(), bad, good.clone()].concat(), LogLevel::Full);
        // A text that is too long ends after the log.
        assert_eq!((lines.lines.len(), lines.is_malformed), (1, true), "{at}");
    }
    let cut = [&good[..], &good[..23]].concat();
    assert!(parse(&cut, LogLevel::Full).is_malformed);
    // The padding after the last entry need not be there.
    let whole = &good[..29];
    assert!(!parse(whole, LogLevel::Full).is_malformed);
}
