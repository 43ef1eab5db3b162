//! Runs the driver of the fuzz target `qcow2_image` with some seeds and pseudorandom data.

#[path = "../../../../../fuzz/drivers/qcow2_image.rs"]
mod driver;
#[path = "../../../../../fuzz/drivers/noise.rs"]
mod noise;

#[test]
fn seeds_and_noise() {
    for choices in 0..4 {
        driver::run(&[choices]);
    }
    // Each byte of the tables and of the header's fields, one after the other.
    for at in (0..112u16)
        .chain(512..520)
        .chain(1024..1060)
        .chain(1536..1552)
    {
        let [low, high] = at.to_le_bytes();
        for value in [1, 0x7f, 0xff] {
            driver::run(&[0, low, high, value]);
        }
    }
    // Entries of the L2 tables.
    for at in 2048..2112u16 {
        let [low, high] = at.to_le_bytes();
        for value in [0x40, 0xff] {
            driver::run(&[0, low, high, value]);
        }
    }
    for data in noise::inputs(300, 40) {
        driver::run(&data);
    }
}
