//! Virtio 1.x devices: the PCI transport, and queues on guest memory.
#![forbid(unsafe_code)]
