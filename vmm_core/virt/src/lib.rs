//! What a VMM needs of a hypervisor: partition, VP, memory, interrupt and state traits, with no hypervisor's types in sight.
#![forbid(unsafe_code)]
