use super::*;
use crate::machine::test_bench::*;
use openvmm_defs::config::VmConfig;
use virt::IrqchipMode;
use virt_fake::Event;
use virt_fake::Step;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::OpenOptions;
use vmgs::Vmgs;

fn set(register: u8, value: u8) -> [Step; 2] {
    [out(0x70, &[register]), out(0x71, &[value])]
}

fn get(bench: &mut Bench, register: u8) -> u8 {
    bench.hypervisor.take_events();
    let size = 1;
    bench.run(vec![
        out(0x70, &[register]),
        Step::ReadPort { port: 0x71, size },
    ]);
    let events = bench.hypervisor.take_events().into_iter();
    let mut read = events.filter_map(|event| match event {
        Event::PortRead {
            port: 0x71, data, ..
        } => Some(data[0]),
        _ => None,
    });
    read.next_back().unwrap()
}

fn store(config: &VmConfig) -> Vmgs {
    let path = config.vmgs.as_ref().unwrap();
    let device = FileDevice::open(path, Container::Detect, ACCESS).unwrap();
    Vmgs::open(Box::new(device), OpenOptions::default()).unwrap()
}

#[test]
fn the_clock_is_kept_from_one_start_to_the_next() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let sequence = bench.machine_sequence();
    bench.run(vec![out(0x70, &[0])]);
    assert_eq!(bench.machine_sequence(), sequence, "nothing was changed");
    // The year 2077, and a byte of RAM.
    let changes = [set(0x32, 0x20), set(9, 0x77), set(0x40, 0xa5)];
    bench.run(changes.into_iter().flatten().collect());
    bench.end(&config);
    let mut vmgs = store(&config);
    let skew: [u8; 8] = vmgs.read(FileId::RTC_SKEW).unwrap().try_into().unwrap();
    // More than 30 years, in units of 100 ns.
    assert!(i64::from_le_bytes(skew) > 30 * 365 * 86_400 * 10_000_000);
    assert_eq!(vmgs.read(FileId::CMOS_RAM).unwrap()[0x40], 0xa5);
    drop(vmgs);

    let mut bench = Bench::boot(&config);
    let read = [0x32, 9, 0x40].map(|register| get(&mut bench, register));
    assert_eq!(read, [0x20, 0x77, 0xa5]);
    // The machine's memory: units of 64 KiB above 16 MiB.
    assert_eq!(get(&mut bench, 0x35), 3);
    bench.end(&config);
}

#[test]
fn a_kept_clock_of_the_reference_or_a_damaged_one_is_survived() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    Bench::boot(&config).end(&config);
    let with = |skew: Vec<u8>, cmos: Option<Vec<u8>>| {
        let mut commit = Commit::new()
            .write(FileId::RTC_SKEW, Protection::Plain, skew)
            .delete_if_present(FileId::CMOS_RAM);
        if let Some(cmos) = cmos {
            commit = Commit::new().write(FileId::CMOS_RAM, Protection::Plain, cmos);
        }
        store(&config).commit(commit).unwrap();
        let mut bench = Bench::boot(&config);
        let hours = get(&mut bench, 0x0b);
        assert_eq!(hours, 2, "hours from 0 to 23");
        let offset = bench.machine.lifecycle.inspect()["rtc"]["offset_seconds"].clone();
        bench.end(&config);
        offset.as_i64().unwrap()
    };
    let hour = 3600 * 10_000_000_i64;
    assert_eq!(with(hour.to_le_bytes().to_vec(), None), 3600);
    assert_eq!(with((-hour).to_le_bytes().to_vec(), None), -3600);
    assert_eq!(with(vec![1; 7], None), 0);
    assert_eq!(with(vec![1; 1 << 20], None), 0);
}
