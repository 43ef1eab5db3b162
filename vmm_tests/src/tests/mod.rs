//! The end-to-end tests, by topic.

mod boot;
mod debian_13;
mod disk;
mod errors;
mod hibernate;
mod hyperv_uefi;
mod igvm;
mod installation;
mod killed;
mod nested;
mod network;
mod ovmf;
mod pause;
mod power;
mod preservation;
mod serial;
mod snapshot;
mod stdio;
mod uefi;

use anyhow::ensure;
use std::time::Duration;
use vmm_tests::Environment;
use vmm_tests::OpenvmmExit;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;

/// The time limit for each VM of a test on a real machine; emulated machines get [`EMULATED`] times as long.
const LIMIT: Duration = Duration::from_secs(90);
const EMULATED: u32 = 4;

/// One test.
pub(crate) struct EndToEndTest {
    pub(crate) name: &'static str,
    function: fn(&Context) -> anyhow::Result<()>,
}

impl EndToEndTest {
    pub(crate) fn run(&self, environment: Environment) -> anyhow::Result<()> {
        let limit = if environment.emulated {
            LIMIT * EMULATED
        } else {
            LIMIT
        };
        (self.function)(&Context { environment, limit })
    }
}

/// The parameters of a test.
struct Context {
    environment: Environment,
    /// The time limit for each openvmm.
    limit: Duration,
}

impl Context {
    /// The same with guests that run Debian 13's kernel.
    fn with_kernel_13(&self) -> Self {
        Self {
            environment: self.environment.with_kernel_13(),
            limit: self.limit,
        }
    }

    /// openvmm with the Linux guest, which executes `commands`.
    fn linux(&self, commands: &str) -> VmBuilder {
        VmBuilder::linux(&self.environment, self.limit, commands)
    }

    /// openvmm without arguments.
    fn openvmm(&self) -> VmBuilder {
        VmBuilder::new(&self.environment, self.limit)
    }

    /// A machine with UEFI firmware and a copy of its variables' template.
    fn uefi(&self) -> anyhow::Result<UefiMachine> {
        UefiMachine::new(&self.environment, self.limit)
    }
}

/// Checks that openvmm ended with `exit`, and printed `reason` as error.
fn expect_error(vm: &Vm, exit: OpenvmmExit, reason: &str) -> anyhow::Result<()> {
    let ended = vm.wait_for_exit()?;
    ensure!(
        ended == exit,
        "{}",
        vm.failure(&format!("expected {exit:?}"))
    );
    ensure!(
        vm.errors().contains(reason),
        "{}",
        vm.failure(&format!("standard error does not contain {reason}"))
    );
    ensure!(
        !vm.errors().contains("panicked"),
        "{}",
        vm.failure("openvmm panicked")
    );
    Ok(())
}

/// Makes a list of test functions, named after their paths.
macro_rules! tests {
    ($($module:ident::$function:ident,)*) => {
        vec![$(EndToEndTest {
            name: concat!(stringify!($module), "::", stringify!($function)),
            function: $module::$function,
        }),*]
    };
}

/// All tests.
pub(crate) fn all() -> Vec<EndToEndTest> {
    tests![
        // The longest comes first, so that no lab ends long after the others.
        installation::hibernates_and_powers_off,
        boot::one_processor,
        boot::four_processors,
        boot::file_backed_memory,
        boot::split_irqchip,
        boot::events_come_in_order,
        debian_13::boots,
        debian_13::wakes_on_its_own_firmware,
        disk::written_and_read,
        disk::nothing_kept,
        disk::eight_of_64_queues,
        disk::locked,
        disk::missing,
        disk::truncated_in_use,
        errors::missing_kernel,
        errors::kernel_is_no_kernel,
        errors::unknown_option,
        errors::too_little_memory,
        errors::memory_file_on_a_full_disk,
        hibernate::four_processors,
        hibernate::devices_work_afterwards,
        hibernate::reset_after_resume,
        hibernate::off,
        hibernate::lost_on_other_firmware,
        hyperv_uefi::one_processor,
        hyperv_uefi::four_processors,
        hyperv_uefi::little_memory,
        hyperv_uefi::memory_above_4g,
        hyperv_uefi::options_and_pci,
        hyperv_uefi::resets,
        hyperv_uefi::in_an_igvm_file,
        hyperv_uefi::crashes,
        hyperv_uefi::wakes_on_its_own_firmware,
        igvm::linux,
        igvm::ovmf,
        igvm::too_little_memory,
        igvm::no_type,
        igvm::damaged,
        killed::while_hibernating_and_waking,
        killed::while_firmware_is_stored,
        killed::stock_software,
        nested::resets_from_the_inner_guest,
        nested::a_user_reset_leaves_the_inner_guest,
        nested::saved_while_the_inner_guest_runs,
        nested::only_when_asked_for,
        network::tcp,
        ovmf::debian_12_then_13,
        ovmf::debian_12_small_then_13,
        ovmf::debian_13_then_12,
        ovmf::code_alone,
        pause::two_seconds,
        power::off_from_inside,
        power::button,
        power::two_reboots_from_inside,
        power::reset_ends_when_asked,
        power::panic,
        power::triple_fault,
        preservation::wakes_on_its_own_firmware,
        preservation::three_times_while_the_firmware_changes,
        preservation::refused_with_a_reason,
        serial::linux_flood,
        serial::bare_flood,
        serial::to_a_file,
        snapshot::linux_three_times,
        snapshot::four_processors,
        snapshot::uefi,
        snapshot::disk,
        snapshot::refused,
        stdio::console_commands,
        stdio::quit,
        stdio::nobody_reads_the_output,
        stdio::nobody_reads_the_errors,
        stdio::no_input,
        stdio::terminated_while_booting,
        uefi::kernel_one_processor,
        uefi::kernel_four_processors,
        uefi::small_firmware,
        uefi::memory_above_4g,
        uefi::disk,
        uefi::read_only_disk,
        uefi::variables_last,
        uefi::boot_order,
        uefi::reboots,
        uefi::power_button,
        uefi::missing_firmware,
        uefi::damaged_firmware,
        uefi::variables_of_another_size,
    ]
}
