use parking_lot::Mutex;
use std::sync::Arc;

/// The interrupt controller that an interrupt line is connected to.
pub trait LineTarget: Send + Sync {
    /// Drives the line of global system interrupt (GSI) `gsi` high or low.
    fn set_line(&self, gsi: u32, high: bool);
}

/// Sources that a line can have.
const MAX_SOURCES: u32 = u64::BITS;

/// Why a device cannot have an interrupt line.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The machine's interrupt controllers have no such line.
    #[error("there is no interrupt line {gsi}")]
    NotThere {
        /// The global system interrupt.
        gsi: u32,
    },
    /// The line has as many sources as it can have.
    #[error("interrupt line {gsi} has {MAX_SOURCES} sources already")]
    Full {
        /// The global system interrupt.
        gsi: u32,
    },
}

/// A device's output to an interrupt line.
///
/// [`LineInterrupt::set`] calls the interrupt controller only if the level of the line changes.
pub struct LineInterrupt {
    shared: Arc<SharedLine>,
    source: u32,
}

/// An interrupt line that several devices may share: it is high while any of them drives it high.
pub(crate) struct SharedLine {
    gsi: u32,
    target: Arc<dyn LineTarget>,
    state: Mutex<LineState>,
}

#[derive(Default)]
struct LineState {
    sources: u32,
    /// A bit for each source that drives the line high.
    high: u64,
}

impl SharedLine {
    /// The line of global system interrupt `gsi` at `target`.
    pub(crate) fn new(gsi: u32, target: Arc<dyn LineTarget>) -> Arc<Self> {
        Arc::new(Self {
            gsi,
            target,
            state: Mutex::default(),
        })
    }

    /// Adds a source to the line, low at first.
    pub(crate) fn source(self: &Arc<Self>) -> Result<LineInterrupt, LineError> {
        let mut state = self.state.lock();
        let source = state.sources;
        if source == MAX_SOURCES {
            return Err(LineError::Full { gsi: self.gsi });
        }
        state.sources += 1;
        Ok(LineInterrupt {
            shared: self.clone(),
            source,
        })
    }
}

impl LineInterrupt {
    /// A line with one source.
    pub fn new(gsi: u32, target: Arc<dyn LineTarget>) -> Self {
        let shared = SharedLine::new(gsi, target);
        shared.state.lock().sources = 1;
        Self { shared, source: 0 }
    }

    /// A line that is connected to nothing.
    pub fn detached() -> Self {
        struct Detached;
        impl LineTarget for Detached {
            fn set_line(&self, _gsi: u32, _high: bool) {}
        }
        Self::new(0, Arc::new(Detached))
    }

    /// Drives the line high or low.
    pub fn set(&self, high: bool) {
        let mut state = self.shared.state.lock();
        let bit = 1 << self.source;
        let was = state.high;
        if high {
            state.high |= bit;
        } else {
            state.high &= !bit;
        }
        if (was != 0) != (state.high != 0) {
            // With the lock held, so that the controller sees the levels in order.
            self.shared
                .target
                .set_line(self.shared.gsi, state.high != 0);
        }
    }

    /// Whether this source drives the line high.
    pub fn is_high(&self) -> bool {
        self.shared.state.lock().high & (1 << self.source) != 0
    }

    /// A rising and a falling edge, for edge-triggered lines.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }

    /// Drives the current level again, after the interrupt controller was reset or restored.
    pub fn redrive(&self) {
        let state = self.shared.state.lock();
        self.shared
            .target
            .set_line(self.shared.gsi, state.high != 0);
    }
}
