//! Structs of `virt` and of KVM that name their fields alike.

/// Two functions that copy the fields which both structs have: to the one of `virt`, and to the one of KVM.
macro_rules! same_fields {
    ($to_virt:ident, $to_kvm:ident: $virt:ty, $kvm:ty { $($field:ident)* }) => {
        pub(crate) fn $to_virt(to: &mut $virt, from: &$kvm) {
            $(to.$field = from.$field;)*
        }

        pub(crate) fn $to_kvm(to: &mut $kvm, from: &$virt) {
            $(to.$field = from.$field;)*
        }
    };
}
pub(crate) use same_fields;
