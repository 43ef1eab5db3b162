//! The tests, by what of openvmm they are about.

mod boot;
mod errors;
mod pause;
mod power;
mod serial;
mod stdio;

use std::time::Duration;
use std::time::Instant;
use vmm_tests::Environment;
use vmm_tests::VmBuilder;

/// How long a test may take where guests run at full speed; emulated machines get [`EMULATED`] times
/// as long.
const LIMIT: Duration = Duration::from_secs(90);
const EMULATED: u32 = 2;

/// One test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    function: fn(&Context) -> anyhow::Result<()>,
}

impl Test {
    pub(crate) fn run(&self, environment: Environment) -> anyhow::Result<()> {
        let limit = if environment.emulated {
            LIMIT * EMULATED
        } else {
            LIMIT
        };
        (self.function)(&Context {
            environment,
            deadline: Instant::now() + limit,
        })
    }
}

/// What a test is given.
struct Context {
    environment: Environment,
    deadline: Instant,
}

impl Context {
    /// openvmm with the Linux guest that runs `commands`.
    fn linux(&self, commands: &str) -> VmBuilder {
        VmBuilder::linux(&self.environment, self.deadline, commands)
    }

    /// openvmm without arguments.
    fn openvmm(&self) -> VmBuilder {
        VmBuilder::new(&self.environment, self.deadline)
    }
}

/// Names functions of this kind after their path.
macro_rules! tests {
    ($($module:ident::$function:ident,)*) => {
        vec![$(Test {
            name: concat!(stringify!($module), "::", stringify!($function)),
            function: $module::$function,
        }),*]
    };
}

/// Every test.
pub(crate) fn all() -> Vec<Test> {
    tests![
        boot::one_processor,
        boot::four_processors,
        boot::file_backed_memory,
        boot::split_irqchip,
        boot::events_come_in_order,
        errors::missing_kernel,
        errors::kernel_is_no_kernel,
        errors::unknown_option,
        errors::too_little_memory,
        errors::memory_file_on_a_full_disk,
        pause::two_seconds,
        power::off_from_inside,
        power::button,
        power::two_reboots_from_inside,
        power::reset_ends_when_asked,
        power::panic,
        power::triple_fault,
        serial::linux_flood,
        serial::bare_flood,
        serial::to_a_file,
        stdio::console_commands,
        stdio::quit,
        stdio::nobody_reads_the_output,
        stdio::no_input,
        stdio::terminated_while_booting,
    ]
}
