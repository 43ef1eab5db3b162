//! End-to-end tests of openvmm on real guests.
