//! Runs what the fuzz target `vmgstool_command` tries over a few seeds and some noise.

#[path = "../../../../fuzz/drivers/vmgstool_command.rs"]
mod driver;

#[test]
fn seeds_and_noise() {
    for command in 0..28 {
        for place in 0..2 {
            let mut data = vec![command, place];
            data.extend_from_slice(include_bytes!("data/nvram.bin"));
            driver::run(&data);
            driver::run(&[command, place]);
            driver::run(&[&[command, place][..], &[0xff; 9000]].concat());
        }
    }
    // A generator of noise (xorshift), the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200 {
        let len = next() % 200;
        let data: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        driver::run(&data);
    }
}
