//! The tests that several labs run. Each gets the name of a test when the one before has ended, so that all end at about the
//! same time.

use super::count::Count;
use std::collections::VecDeque;
use std::io;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The tests that have not ended.
#[derive(Clone)]
pub(super) struct TestQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<String>,
    labs: Vec<LabTests>,
}

/// What a lab does.
#[derive(Clone, Default)]
struct LabTests {
    running: Option<String>,
    /// How often the lab was started.
    starts: u32,
}

impl TestQueue {
    /// A queue of `tests` for some labs.
    pub(super) fn new(tests: Vec<String>, labs: usize) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                waiting: tests.into(),
                labs: vec![LabTests::default(); labs],
            }),
            changed: Condvar::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The input of a lab that starts, with a line for each test. A test that it ran when it stopped comes again.
    pub(super) fn input(&self, lab: usize) -> LabInput {
        let mut state = self.state();
        let State { waiting, labs } = &mut *state;
        let tests = &mut labs[lab];
        tests.starts += 1;
        if let Some(again) = tests.running.take() {
            waiting.push_front(again);
        }
        self.0.changed.notify_all();
        LabInput {
            queue: self.clone(),
            lab,
            start: tests.starts,
            line: VecDeque::new(),
        }
    }

    /// A writer for the output of a lab, which forwards complete lines to `out`, so that lines of several labs do not mix.
    /// (`io::LineWriter` forwards the beginning of a line when it is flushed.)
    pub(super) fn output<W: Write>(&self, lab: usize, out: W) -> LabOutput<W> {
        LabOutput {
            queue: self.clone(),
            lab,
            out,
            line: Vec::new(),
        }
    }

    /// How many tests were not run to their end.
    pub(super) fn left(&self) -> u64 {
        let state = self.state();
        let running = state.labs.iter().filter(|lab| lab.running.is_some());
        (state.waiting.len() + running.count()) as u64
    }

    /// The lab's test has ended.
    fn ended(&self, lab: usize) {
        self.state().labs[lab].running = None;
        self.0.changed.notify_all();
    }

    /// Waits until the lab is idle. Returns its next test; `None` if there is none, or the lab was started again.
    fn next(&self, lab: usize, start: u32) -> Option<String> {
        let mut state = self.state();
        loop {
            let tests = &state.labs[lab];
            if tests.starts != start {
                return None;
            }
            if tests.running.is_none() {
                let next = state.waiting.pop_front();
                state.labs[lab].running.clone_from(&next);
                return next;
            }
            let woken = self.0.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A lab's input.
pub(super) struct LabInput {
    queue: TestQueue,
    lab: usize,
    start: u32,
    line: VecDeque<u8>,
}

impl Read for LabInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.line.is_empty()
            && let Some(test) = self.queue.next(self.lab, self.start)
        {
            self.line.extend(test.bytes());
            self.line.push_back(b'\n');
        }
        self.line.read(buffer)
    }
}

/// A lab's output.
pub(super) struct LabOutput<W: Write> {
    queue: TestQueue,
    lab: usize,
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Write for LabOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.out.write_all(&line)?;
            if Count::of_line(&String::from_utf8_lossy(&line)).is_some() {
                self.queue.ended(self.lab);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Drop for LabOutput<W> {
    /// Forwards the incomplete last line of a lab that ended.
    fn drop(&mut self) {
        let _ = self.out.write_all(&self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::super::count::CountingWriter;
    use super::*;
    use crate::shared_writer::SharedWriter;
    use std::io::BufRead as _;
    use std::io::BufReader;

    fn queue(tests: &[&str]) -> TestQueue {
        let tests = tests.iter().map(|&test| test.to_owned()).collect();
        TestQueue::new(tests, 2)
    }

    fn line(input: &mut BufReader<LabInput>) -> String {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        line
    }

    const ENDED: &[u8] = b"test result: ok. 1 passed; 0 failed\n";

    #[test]
    fn a_lab_gets_a_test_when_the_one_before_has_ended() {
        let queue = queue(&["a", "b", "c"]);
        let (mut first, mut second) = (
            BufReader::new(queue.input(0)),
            BufReader::new(queue.input(1)),
        );
        assert_eq!(line(&mut first), "a\n");
        assert_eq!(line(&mut second), "b\n");
        let mut output = queue.output(1, io::sink());
        output.write_all(&ENDED[..9]).unwrap();
        assert_eq!(queue.left(), 3);
        output.write_all(&ENDED[9..]).unwrap();
        assert_eq!(line(&mut second), "c\n");
        output.write_all(ENDED).unwrap();
        assert_eq!(line(&mut second), "");
        assert_eq!(queue.left(), 1);
        queue.output(0, io::sink()).write_all(ENDED).unwrap();
        assert_eq!(line(&mut first), "");
        assert_eq!(queue.left(), 0);
    }

    #[test]
    fn a_lab_that_is_started_again_runs_its_test_again() {
        let queue = queue(&["a", "b"]);
        let mut before = BufReader::new(queue.input(0));
        assert_eq!(line(&mut before), "a\n");
        // It waits for the end of its test, which does not come.
        let waiting = std::thread::spawn(move || line(&mut before));
        let mut after = BufReader::new(queue.input(0));
        assert_eq!(waiting.join().unwrap(), "");
        assert_eq!(line(&mut after), "a\n");
        queue.output(0, io::sink()).write_all(ENDED).unwrap();
        assert_eq!(line(&mut after), "b\n");
        assert_eq!(queue.left(), 1);
    }

    #[test]
    fn lines_of_several_labs_do_not_mix() {
        let queue = queue(&[]);
        let counter = SharedWriter::new(CountingWriter::new(io::sink()));
        let mut first = queue.output(0, counter.clone());
        let mut second = queue.output(1, counter.clone());
        first.write_all(b"test result: ok. 3 pas").unwrap();
        second
            .write_all(b"test a ... ok\ntest result: FAILED. 1 passed; 2 failed\ntest")
            .unwrap();
        first.write_all(b"sed; 0 failed\n").unwrap();
        drop((first, second));
        let count = counter.lock().count;
        assert_eq!((count.passed, count.failed), (4, 2));
    }
}
