//! Structs of `virt` and of KVM that name their fields alike.

/// Copies fields that both structs have.
macro_rules! copy_fields {
    ($to:expr, $from:expr; $($field:ident)*) => {
        $($to.$field = $from.$field;)*
    };
}

/// Two functions that copy fields: to the struct of `virt`, and to the one of KVM.
macro_rules! same_fields {
    ($to_virt:ident, $to_kvm:ident: $virt:ty, $kvm:ty { $($field:ident)* }) => {
        pub(crate) fn $to_virt(to: &mut $virt, from: &$kvm) {
            $crate::fields::copy_fields!(to, from; $($field)*);
        }

        fn $to_kvm(to: &mut $kvm, from: &$virt) {
            $crate::fields::copy_fields!(to, from; $($field)*);
        }
    };
}

pub(crate) use copy_fields;
pub(crate) use same_fields;
