//! The openvmm program.
#![forbid(unsafe_code)]

fn main() {
    openvmm_entry::main();
}
