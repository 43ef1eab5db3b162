use chipset_device::MsiMessage;
use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use std::sync::Arc;

/// The number of pins of the I/O APIC.
pub const PINS: u8 = 24;

/// Delivers interrupts of the pins to the local APICs. An implementation may install a route for each pin in the
/// kernel, so that an interrupt needs no translation.
///
/// It is called with the I/O APIC locked, so it must not call back.
pub trait IoApicRouting: Send + Sync {
    /// Sets the message that `pin` delivers, if any. For a level-triggered route (data bit 15) the local APICs must
    /// report the end of the interrupt to [`crate::ioapic::IoApicPins::eoi`].
    fn set_route(&self, pin: u8, route: Option<MsiMessage>);

    /// Delivers the interrupt of `pin` once, by the route that was set. Returns false if it is known that no local
    /// APIC accepted it.
    fn assert(&self, pin: u8) -> bool;
}

const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 0x700;
const LOGICAL: u64 = 1 << 11;
const POLARITY: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// The destination, and below it the bits by which KVM and Hyper-V extend it to 15 bits.
const DESTINATION: u64 = 0xfffe << 48;
const WRITABLE: u64 = VECTOR | DELIVERY_MODE | LOGICAL | POLARITY | LEVEL | MASKED | DESTINATION;

const LOCAL_APICS: u64 = 0xfee0_0000;

/// Version 0x20, which has an EOI register, and the number of the last pin. Guests use the EOI register
/// if the local APIC supports suppressing EOI broadcasts.
const VERSION: u32 = ((PINS as u32 - 1) << 16) | 0x20;

const ID_REGISTER: u8 = 0x00;
const VERSION_REGISTER: u8 = 0x01;
const ARBITRATION_REGISTER: u8 = 0x02;
const FIRST_REDIRECTION: u8 = 0x10;
const ID_BITS: u32 = 0x0f00_0000;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct State {
    #[n(1)]
    pub(crate) id: u32,
    #[n(2)]
    pub(crate) select: u8,
    #[n(3)]
    pub(crate) redirections: Vec<u64>,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            id: 0,
            select: 0,
            redirections: vec![MASKED; usize::from(PINS)],
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let invalid = |text: String| Err(RestoreError::Invalid(text));
        if self.redirections.len() != usize::from(PINS) {
            let pins = self.redirections.len();
            return invalid(format!("{pins} I/O APIC pins instead of {PINS}"));
        }
        if self.id & !ID_BITS != 0 {
            return invalid(format!("invalid I/O APIC id {:#x}", self.id));
        }
        let stray = |rte: &u64| {
            rte & !(WRITABLE | REMOTE_IRR) != 0 || rte & REMOTE_IRR != 0 && !is_level(*rte)
        };
        if let Some(pin) = self.redirections.iter().position(stray) {
            let rte = self.redirections[pin];
            return invalid(format!(
                "invalid redirection table entry {rte:#x} of pin {pin}"
            ));
        }
        Ok(())
    }
}

/// Whether the entry is level-triggered, with a delivery mode that can be.
fn is_level(rte: u64) -> bool {
    let fixed_or_lowest_priority = rte & DELIVERY_MODE <= 0x100;
    rte & LEVEL != 0 && fixed_or_lowest_priority
}

fn message(rte: u64) -> MsiMessage {
    let logical = u64::from(rte & LOGICAL != 0) << 2;
    let destination = (rte >> 56) << 12;
    let extension = (rte >> 49 & 0x7f) << 5;
    let mode = rte & (VECTOR | DELIVERY_MODE);
    let trigger = if is_level(rte) { LEVEL } else { 0 };
    // Bit 14: asserted.
    let data = mode | trigger | 1 << 14;
    MsiMessage {
        address: LOCAL_APICS | destination | extension | logical,
        data: data as u32,
    }
}

/// The part of the I/O APIC that is behind a lock.
pub(crate) struct Core {
    routing: Arc<dyn IoApicRouting>,
    pub(crate) state: State,
    /// The levels of the pins. Not part of the saved state.
    lines: u32,
    routes: [Option<MsiMessage>; PINS as usize],
}

impl Core {
    pub(crate) fn new(routing: Arc<dyn IoApicRouting>) -> Self {
        Self {
            routing,
            state: State::new(),
            lines: 0,
            routes: [None; PINS as usize],
        }
    }

    /// Sets a state that was checked, and sets all routes again.
    pub(crate) fn set_state(&mut self, state: State) {
        self.state = state;
        for pin in 0..PINS {
            let rte = self.state.redirections[usize::from(pin)];
            let route = (rte & MASKED == 0 || rte & REMOTE_IRR != 0).then(|| message(rte));
            self.routes[usize::from(pin)] = route;
            self.routing.set_route(pin, route);
        }
        for pin in 0..PINS {
            self.deliver_level(pin);
        }
    }

    pub(crate) fn set_line(&mut self, pin: u8, high: bool) {
        let bit = 1 << pin;
        let rises = high && self.lines & bit == 0;
        if high {
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
        let rte = self.state.redirections[usize::from(pin)];
        if is_level(rte) {
            self.deliver_level(pin);
        } else if rises && rte & MASKED == 0 {
            // An edge on a masked pin is lost, as in the data sheet.
            self.routing.assert(pin);
        }
    }

    /// Ends the level-triggered interrupts of `vector`. Those whose line is still high are delivered again.
    pub(crate) fn eoi(&mut self, vector: u8) {
        for pin in 0..PINS {
            let rte = &mut self.state.redirections[usize::from(pin)];
            if *rte & REMOTE_IRR != 0 && *rte & VECTOR == u64::from(vector) {
                *rte &= !REMOTE_IRR;
                self.update_route(pin);
                self.deliver_level(pin);
            }
        }
    }

    /// Delivers the level-triggered interrupt of a pin that is high, unless it is already pending or in service.
    fn deliver_level(&mut self, pin: u8) {
        let rte = &mut self.state.redirections[usize::from(pin)];
        let idle = *rte & (MASKED | REMOTE_IRR) == 0;
        if is_level(*rte) && idle && self.lines & (1 << pin) != 0 && self.routing.assert(pin) {
            *rte |= REMOTE_IRR;
        }
    }

    fn update_route(&mut self, pin: u8) {
        let rte = self.state.redirections[usize::from(pin)];
        let route = if rte & MASKED == 0 {
            Some(message(rte))
        } else if rte & REMOTE_IRR != 0 {
            // The route is still needed to report the end of the interrupt.
            return;
        } else {
            None
        };
        let installed = &mut self.routes[usize::from(pin)];
        if *installed != route {
            *installed = route;
            self.routing.set_route(pin, route);
        }
    }

    pub(crate) fn read(&self) -> u32 {
        match self.state.select {
            ID_REGISTER | ARBITRATION_REGISTER => self.state.id,
            VERSION_REGISTER => VERSION,
            select => match self.selected_redirection(select) {
                Some((pin, shift)) => (self.state.redirections[usize::from(pin)] >> shift) as u32,
                None => 0,
            },
        }
    }

    pub(crate) fn write(&mut self, value: u32) {
        if self.state.select == ID_REGISTER {
            self.state.id = value & ID_BITS;
            return;
        }
        let Some((pin, shift)) = self.selected_redirection(self.state.select) else {
            return;
        };
        let rte = &mut self.state.redirections[usize::from(pin)];
        let writable = WRITABLE & (0xffff_ffff << shift);
        *rte = *rte & !writable | u64::from(value) << shift & writable;
        if !is_level(*rte) {
            // Guests that do not use the EOI register end an interrupt by making the pin
            // edge-triggered temporarily.
            *rte &= !REMOTE_IRR;
        }
        self.update_route(pin);
        self.deliver_level(pin);
    }

    /// The pin whose redirection table entry `select` selects half of, and the bit offset of that half.
    fn selected_redirection(&self, select: u8) -> Option<(u8, u32)> {
        let half = select.checked_sub(FIRST_REDIRECTION)?;
        let pin = half / 2;
        (pin < PINS).then_some((pin, u32::from(half & 1) * 32))
    }

    pub(crate) fn lines(&self) -> u32 {
        self.lines
    }
}
