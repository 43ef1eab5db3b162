//! ACPI tables built for the machine that the configuration describes.
#![forbid(unsafe_code)]
