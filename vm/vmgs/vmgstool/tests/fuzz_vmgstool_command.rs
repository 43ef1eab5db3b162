//! Runs the driver of the fuzz target `vmgstool_command` with some seeds and pseudo-random data.

#[path = "../../../../fuzz/drivers/vmgstool_command.rs"]
mod driver;
#[path = "../../../../fuzz/drivers/noise.rs"]
mod noise;

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
    for data in noise::inputs(200, 200) {
        driver::run(&data);
    }
}
