//! Runs what the fuzz target `hibernation_record` tries over a few seeds and some noise.

#[path = "../../../../fuzz/drivers/hibernation_record.rs"]
mod driver;

#[test]
fn seeds_and_noise() {
    // A generator of noise (xorshift), the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // Nothing edited: sound, and restored.
    driver::run(&[0, 0]);
    for _ in 0..3000 {
        let len = 2 + next() % 20;
        let data: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        driver::run(&data);
    }
}
