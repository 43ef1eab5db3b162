//! For tests: a hypervisor whose guests are scripts, so that whole machines run in unit tests on any computer.
//!
//! A test makes a [`FakeHypervisor`], gives a clone of it to the code under test, and keeps the other: with it the test
//! writes what each VP does ([`Step`]), reads what was done to the partition in which order ([`Event`]), and looks at
//! the state that the partition keeps. There are no instructions: a VP carries out its steps while it runs, and waits
//! for more when it has none left.
//!
//! ```
//! use virt::Hypervisor as _;
//! use virt_fake::FakeHypervisor;
//! use virt_fake::Step;
//!
//! let hypervisor = FakeHypervisor::new();
//! hypervisor.push(0, [Step::WritePort { port: 0x3f8, data: vec![b'!'] }]);
//! assert_eq!(hypervisor.host_info().unwrap().address_bits, 46);
//! ```
#![forbid(unsafe_code)]

mod event;
mod hypervisor;
mod mappings;
mod partition;
mod processor;
mod state;
mod step;
mod vector;
mod vp;

pub use event::Event;
pub use hypervisor::FakeHypervisor;
pub use partition::PROCESSOR;
pub use step::Step;
