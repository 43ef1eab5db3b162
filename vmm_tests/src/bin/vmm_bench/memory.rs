//! Measures a process's memory besides its guest's RAM.

use anyhow::Context;
use std::fs;

/// The resident size of all mappings of process `pid` in KiB, without the guest's RAM: mappings of at least half of
/// `guest_ram_kib`.
pub(crate) fn resident_kib(pid: u32, guest_ram_kib: u64) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps");
    let smaps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (resident, found_ram) = sum(&smaps, guest_ram_kib);
    anyhow::ensure!(found_ram, "{path} shows no mapping of the guest's RAM");
    Ok(resident as f64)
}

/// Returns the sum of the resident sizes, and whether a mapping of guest RAM was found.
fn sum(smaps: &str, guest_ram_kib: u64) -> (u64, bool) {
    let mut total = 0;
    let mut found_ram = false;
    let mut is_ram = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (key, value) = (words.next(), words.next());
        let value = value.and_then(|value| value.parse::<u64>().ok());
        match (key, value) {
            // The size is the first line of a mapping's numbers.
            (Some("Size:"), Some(size)) => {
                is_ram = size >= guest_ram_kib / 2;
                found_ram |= is_ram;
            }
            (Some("Rss:"), Some(resident)) if !is_ram => total += resident,
            _ => {}
        }
    }
    (total, found_ram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ram_is_not_counted() {
        let smaps = "7f00-7f10 rw-p 0 00:00 0\nSize: 524288 kB\nRss: 100000 kB\nPss: 1 kB\n\
                     5500-5510 r-xp 0 00:00 0 /bin/x\nSize: 900 kB\nRss: 700 kB\n\
                     5600-5610 rw-p 0 00:00 0 [heap]\nSize: 200 kB\nRss: 50 kB\n";
        assert_eq!(sum(smaps, 512 << 10), (750, true));
        assert_eq!(sum("Size: 1 kB\nRss: 1 kB\n", 512 << 10), (1, false));
    }
}
