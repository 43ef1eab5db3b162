//! Runs what the fuzz target `vmgs_store` tries over a few seeds and some noise.

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
