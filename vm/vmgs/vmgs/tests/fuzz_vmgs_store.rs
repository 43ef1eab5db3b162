//! Runs the driver of the fuzz target `vmgs_store` with some seeds and pseudo-random data.

#[path = "../../../../fuzz/drivers/vmgs_store.rs"]
mod driver;
#[path = "../../../../fuzz/drivers/noise.rs"]
mod noise;

#[test]
fn seeds_and_noise() {
    for data in noise::inputs(1500, 200) {
        driver::run(&data);
    }
}
