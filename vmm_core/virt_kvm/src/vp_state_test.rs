use super::*;

/// In `orders`, `first` comes before `second`, `because` of this.
struct Constraint {
    orders: &'static [Order],
    first: VpRow,
    second: VpRow,
    because: &'static str,
}

#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Order {
    Save,
    Restore,
    Reset,
}

impl Order {
    fn rows(self) -> Vec<&'static str> {
        let rows = match self {
            Self::Save => SAVE,
            Self::Restore => RESTORE,
            Self::Reset => RESET,
        };
        rows.iter().map(|row| row.name).collect()
    }
}

const READING: &[Order] = &[Order::Save];
const WRITING: &[Order] = &[Order::Restore, Order::Reset];
const RESTORING: &[Order] = &[Order::Restore];
const RESETTING: &[Order] = &[Order::Reset];

const fn before(
    orders: &'static [Order],
    first: VpRow,
    second: VpRow,
    because: &'static str,
) -> Constraint {
    Constraint {
        orders,
        first,
        second,
        because,
    }
}

#[rustfmt::skip]
const CONSTRAINTS: &[Constraint] = &[
    before(READING, ACTIVITY, EVENTS, INIT_IS_ACCEPTED),
    before(READING, ACTIVITY, GENERAL_REGISTERS, INIT_IS_ACCEPTED),
    before(READING, ACTIVITY, SPECIAL_REGISTERS, INIT_IS_ACCEPTED),
    before(READING, ACTIVITY, XSAVE, INIT_IS_ACCEPTED),
    before(READING, ACTIVITY, EARLY_MSRS, INIT_IS_ACCEPTED),
    before(READING, ACTIVITY, LAPIC, INIT_IS_ACCEPTED),
    before(READING, EVENTS, SPECIAL_REGISTERS, "without exception payloads KVM puts a pending one into CR2 when asked"),
    before(READING, EVENTS, DEBUG_REGISTERS, "without exception payloads KVM puts a pending one into DR6 when asked"),
    before(READING, EARLY_MSRS, LAPIC, "a timer that fires in between is then in both, which does no harm"),

    before(WRITING, CPUID, EARLY_MSRS, CPUID_DECIDES),
    before(WRITING, CPUID, SPECIAL_REGISTERS, CPUID_DECIDES),
    before(WRITING, CPUID, XCR0, CPUID_DECIDES),
    before(WRITING, CPUID, XSAVE, CPUID_DECIDES),
    before(WRITING, TSC_FREQUENCY, TSC_DEADLINE, "the deadline is in units of the counter"),
    before(WRITING, EARLY_MSRS, XSAVE, "IA32_XSS says which supervisor state the area has"),
    before(WRITING, XCR0, XSAVE, "XCR0 says which user state the area has"),
    before(WRITING, SPECIAL_REGISTERS, LAPIC, "the APIC base decides how the local APIC's registers are read"),
    before(WRITING, SPECIAL_REGISTERS, ACTIVITY, "a boot processor put at the reset vector starts to run"),
    before(WRITING, TSC, LAPIC, "the timer starts from the counter"),
    before(WRITING, MSRS, TSC_DEADLINE, "IA32_TSC_ADJUST comes first"),
    before(WRITING, LAPIC, TSC_DEADLINE, "the timer's mode decides whether the deadline is kept"),
    before(WRITING, LAPIC, HYPERV, "synthetic timers that are enabled may raise interrupts"),
    before(WRITING, GENERAL_REGISTERS, EVENTS, "writing the registers clears a pending exception"),
    before(WRITING, LAPIC, EVENTS, "writing the local APIC replaces what is pending"),
    before(WRITING, EVENTS, ACTIVITY, "a pending SMI is refused while the VP waits for SIPI"),

    before(WRITING, NESTED_EXIT, CPUID, "in VMX operation the table may not take VMX away"),
    before(WRITING, NESTED_EXIT, EARLY_MSRS, "VMX capabilities are refused in VMX operation"),
    before(WRITING, NESTED_EXIT, SPECIAL_REGISTERS, "in guest mode they are the inner guest's, and VMX operation restricts them"),
    before(WRITING, NESTED_EXIT, GENERAL_REGISTERS, "in guest mode they are the inner guest's"),
    before(WRITING, NESTED_EXIT, ACTIVITY, "waiting for SIPI is refused in VMX operation"),
    before(RESETTING, NESTED_EXIT, PAGE_TABLE_ROOT, "the root is the guest's own again"),
    before(WRITING, CPUID, SHADOW_STACK, CPUID_DECIDES),

    before(RESTORING, SPECIAL_REGISTERS, NESTED_STATE, "on SVM the inner guest's registers and EFER.SVME are in place"),
    before(RESTORING, EARLY_MSRS, NESTED_STATE, "IA32_FEATURE_CONTROL and the VMX capabilities decide whether it is accepted"),
    before(RESTORING, EVENTS, NESTED_STATE, "changing system management mode leaves guest mode"),
    before(RESTORING, ACTIVITY, NESTED_STATE, "waiting for SIPI is refused in VMX operation"),
    before(RESETTING, PAGE_TABLE_ROOT, SPECIAL_REGISTERS, "the real CR3 differs from the one that renews the root"),
];

const INIT_IS_ACCEPTED: &str =
    "KVM acts on a pending INIT or SIPI when asked for the activity, which changes everything else";
const CPUID_DECIDES: &str = "the table decides which values KVM accepts";

/// The constraints that `rows` breaks.
fn broken(order: Order, rows: &[&str]) -> Vec<String> {
    let at = |row: &VpRow| rows.iter().position(|name| *name == row.name);
    CONSTRAINTS
        .iter()
        .filter(|c| c.orders.contains(&order))
        .filter(|c| match (at(&c.first), at(&c.second)) {
            (Some(first), Some(second)) => first >= second,
            _ => false,
        })
        .map(|c| format!("{} before {}: {}", c.first.name, c.second.name, c.because))
        .collect()
}

#[test]
fn the_orders_keep_the_constraints() {
    for order in [Order::Save, Order::Restore, Order::Reset] {
        assert_eq!(broken(order, &order.rows()), [""; 0], "{order:?}");
    }
}

#[test]
fn a_wrong_order_breaks_a_constraint() {
    for order in [Order::Save, Order::Restore, Order::Reset] {
        let mut rows = order.rows();
        rows.reverse();
        assert_ne!(broken(order, &rows), [""; 0], "{order:?}");
    }
    let mut restore = Order::Restore.rows();
    let at = |name| restore.iter().position(|n| *n == name).unwrap();
    let (lapic, deadline) = (at(LAPIC.name), at(TSC_DEADLINE.name));
    restore.swap(lapic, deadline);
    let text = broken(Order::Restore, &restore).concat();
    assert!(text.contains("the timer's mode"), "{text}");
    // Every constraint is about rows that the order has.
    for c in CONSTRAINTS {
        let both = |order: &Order| {
            let rows = order.rows();
            rows.contains(&c.first.name) && rows.contains(&c.second.name)
        };
        assert!(c.orders.iter().any(both), "{}", c.because);
    }
}

#[test]
fn each_order_has_each_row_once() {
    for order in [Order::Save, Order::Restore, Order::Reset] {
        let mut rows = order.rows();
        let len = rows.len();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), len, "{order:?}");
    }
    let without = |order: Order, absent: &[VpRow]| {
        let mut rows = order.rows();
        rows.retain(|name| absent.iter().all(|row| row.name != *name));
        rows.sort_unstable();
        rows
    };
    // What is reset is what is restored, but for what stays, what is no state, and nested state, which is left.
    assert_eq!(
        without(Order::Restore, &[CPUID, TSC_FREQUENCY, NESTED_STATE]),
        without(Order::Reset, &[PAGE_TABLE_ROOT])
    );
    // All MSRs are read at once.
    assert_eq!(
        without(Order::Restore, &[MSRS, TSC_DEADLINE, NESTED_EXIT]),
        without(Order::Save, &[])
    );
}

#[test]
fn msrs_are_written_by_phase_whatever_the_order_they_were_saved_in() {
    // IA32_TSC_ADJUST, IA32_FIXED_CTR_CTRL, IA32_PAT, IA32_SYSENTER_CS, IA32_FEATURE_CONTROL, IA32_TSC_DEADLINE.
    let saved = [0x3b, 0x38d, 0x277, 0x174, 0x3a, 0x6e0].map(|index| Msr { index, value: 1 });
    let order = |phases| -> Vec<_> {
        let msrs = of_phases(&saved, &phases);
        msrs.iter().map(|msr| msr.index).collect()
    };
    assert_eq!(
        order(Phase::Capabilities..=Phase::TscDeadline),
        [0x3a, 0x277, 0x174, 0x3b, 0x38d, 0x6e0]
    );
    assert_eq!(
        order(Phase::Ordinary..=Phase::Enables),
        [0x277, 0x174, 0x3b, 0x38d]
    );
}

#[test]
fn frequencies_within_the_tolerance_are_one() {
    for (khz, same) in [
        (2_000_000, true),
        (2_000_500, true),
        (2_000_501, false),
        (1_999_500, true),
        (1_999_499, false),
        (0, false),
    ] {
        assert_eq!(is_same_frequency(2_000_000, khz), same, "{khz}");
    }
}

#[test]
fn a_reset_leaves_system_management_mode() {
    let within = Events {
        smi: Some(Smi {
            active: true,
            pending: true,
            inside_nmi: true,
            latched_init: true,
        }),
        ..Default::default()
    };
    let after = events_at_reset(&within);
    // Without a state KVM would keep its own.
    assert_eq!(after.smi, Some(Smi::default()));
    assert_eq!(events_at_reset(&Events::default()), Events::default());
}
