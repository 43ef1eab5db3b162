//! The backend on a real `/dev/kvm`: small guests that make one thing happen each. They fail where there is none.

mod exits;
mod machine;
