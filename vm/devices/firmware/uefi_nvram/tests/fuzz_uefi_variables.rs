//! Runs the driver of the fuzz target `uefi_variables` with some seeds and pseudo-random data.

#[path = "../../../../../fuzz/drivers/uefi_variables.rs"]
mod driver;
#[path = "../../../../../fuzz/drivers/noise.rs"]
mod noise;

#[test]
fn seeds_and_noise() {
    let signature = include_bytes!("../testdata/leaf-chain.p7");
    driver::run(signature);
    for at in 0..signature.len() {
        let mut bytes = signature.to_vec();
        bytes[at] ^= 0x81;
        driver::run(&bytes);
    }
    for data in noise::inputs(1000, 200) {
        driver::run(&data);
    }
}
