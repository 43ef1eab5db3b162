//! Runs what the fuzz target `uefi_nvram` tries over a few seeds and some noise.

#[path = "../../../../fuzz/drivers/uefi_nvram.rs"]
mod driver;

#[test]
fn seeds_and_noise() {
    driver::run(include_bytes!("../../vmgstool/tests/data/nvram.bin"));
    // A generator of noise (xorshift), the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..3000 {
        let len = next() % 200;
        let data: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        driver::run(&data);
    }
}
