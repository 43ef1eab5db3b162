//! Recognizes OVMF.
