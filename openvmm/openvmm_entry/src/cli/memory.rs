//! The value of `--memory`: `SIZE` or `size=SIZE[,file=PATH][,hugepages][,prealloc]`.

use super::size::parse_size;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::Population;
use std::path::PathBuf;

/// Parses the value of `--memory`.
pub(crate) fn parse_memory(text: &str) -> Result<MemoryConfig, String> {
    let mut size = None;
    let mut config = MemoryConfig {
        size: 0,
        file: None,
        pages: HostPages::Default,
        population: Population::OnDemand,
    };
    for (n, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            Some(("size", value)) => set_once(&mut size, "size", parse_size(value)?)?,
            Some(("file", "")) => return Err("file= needs a path".into()),
            Some(("file", value)) => set_once(&mut config.file, "file", PathBuf::from(value))?,
            None if part == "hugepages" => config.pages = HostPages::Huge,
            None if part == "prealloc" => config.population = Population::Prealloc,
            None if n == 0 => set_once(&mut size, "size", parse_size(part)?)?,
            _ => {
                return Err(format!(
                    "'{part}' is not one of size=SIZE, file=PATH, hugepages, prealloc"
                ));
            }
        }
    }
    config.size = size.ok_or("the size is missing (example: size=1G,prealloc)")?;
    if config.file.is_some() && config.pages == HostPages::Huge {
        return Err(
            "hugepages and file= cannot be combined: huge pages come from the host's pool; give one of the two".into(),
        );
    }
    Ok(config)
}

fn set_once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is given twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_is_a_size() {
        let config = parse_memory("1G").unwrap();
        assert_eq!(config.size, 1 << 30);
        assert_eq!(config.file, None);
        assert_eq!(config.population, Population::OnDemand);
    }

    #[test]
    fn all_keys_are_parsed() {
        let config = parse_memory("size=512M,file=/tmp/ram=1.bin,prealloc").unwrap();
        assert_eq!(config.size, 512 << 20);
        assert_eq!(config.file, Some(PathBuf::from("/tmp/ram=1.bin")));
        assert_eq!(config.population, Population::Prealloc);
        assert_eq!(parse_memory("1G,hugepages").unwrap().pages, HostPages::Huge);
    }

    #[test]
    fn errors_name_the_wrong_part() {
        let error = |text| parse_memory(text).unwrap_err();
        assert!(error("file=/tmp/x").contains("size is missing"));
        assert!(error("1G,size=2G").contains("twice"));
        assert!(error("1G,huge").contains("'huge'"));
        assert!(error("1G,file=").contains("path"));
        assert!(error("1G,hugepages,file=/x").contains("one of the two"));
        assert!(error("lots").contains("'lots'"));
    }
}
