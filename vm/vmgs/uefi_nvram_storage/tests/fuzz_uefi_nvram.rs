//! Runs the driver of the fuzz target `uefi_nvram` with some seeds and pseudo-random data.

#[path = "../../../../fuzz/drivers/uefi_nvram.rs"]
mod driver;
#[path = "../../../../fuzz/drivers/noise.rs"]
mod noise;

#[test]
fn seeds_and_noise() {
    driver::run(include_bytes!("../../vmgstool/tests/data/nvram.bin"));
    for data in noise::inputs(3000, 200) {
        driver::run(&data);
    }
}
