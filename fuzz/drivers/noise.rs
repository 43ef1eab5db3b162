//! Pseudorandom inputs, the same in every run, for tests that run fuzz drivers.

/// Returns `count` inputs of less than `max_len` bytes.
pub(crate) fn inputs(count: usize, max_len: u64) -> impl Iterator<Item = Vec<u8>> {
    // Marsaglia's xorshift with 64 bits of state.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count).map(move |_| {
        let len = next() % max_len;
        (0..len).map(|_| next() as u8).collect()
    })
}
