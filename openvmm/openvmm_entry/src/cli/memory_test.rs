use super::*;

fn parse_memory(text: &str) -> Result<MemoryConfig, String> {
    parse_keys(text)?.resolve()
}

#[test]
fn the_short_form_is_a_size() {
    let config = parse_memory("1G").unwrap();
    assert_eq!(config.size, 1 << 30);
    assert_eq!(config.file, None);
    assert_eq!(config.population, Population::OnDemand);
    assert_eq!((config.pages, config.sharing), (HostPages::Default, None));
}

#[test]
fn all_keys_are_parsed() {
    let config = parse_memory("size=512M,file=/tmp/ram=1.bin,prealloc").unwrap();
    assert_eq!(config.size, 512 << 20);
    assert_eq!(config.file, Some(PathBuf::from("/tmp/ram=1.bin")));
    assert_eq!(config.population, Population::Prealloc);
    assert_eq!(parse_memory("file=/x").unwrap().size, 1 << 30);
}

#[test]
fn the_kind_of_memory_is_chosen() {
    let shared = Some(Sharing::Shared);
    for (text, pages, sharing) in [
        ("1G,hugepages", HostPages::Huge, None),
        ("1G,hugepages=on,hugepage_size=2MB", HostPages::Huge, None),
        ("1G,hugepages=on,hugepage_size=1G", HostPages::Huge1G, None),
        ("1G,hugepages=on,shared=on", HostPages::Huge, shared),
        ("1G,hugepages=off", HostPages::Default, None),
        ("1G,thp=on", HostPages::Default, None),
        ("1G,thp=off", HostPages::Small, None),
        ("1G,shared", HostPages::Default, shared),
        ("1G,shared=off", HostPages::Default, None),
    ] {
        let config = parse_memory(text).unwrap();
        assert_eq!((config.pages, config.sharing), (pages, sharing), "{text}");
    }
    for (text, population) in [
        ("1G,prefetch", Population::Prealloc),
        ("1G,prefetch=on", Population::Prealloc),
        ("1G,prefetch=off", Population::OnDemand),
    ] {
        assert_eq!(parse_memory(text).unwrap().population, population, "{text}");
    }
}

#[test]
fn errors_name_the_wrong_part() {
    let error = |text| parse_memory(text).unwrap_err();
    assert!(error("1G,size=2G").contains("twice"));
    assert!(error("1G,huge").contains("'huge'"));
    assert!(error("1G,file=").contains("path"));
    assert!(error("1G,hugepages,file=/x").contains("one of the two"));
    assert!(error("1G,shared=off,file=/x").contains("shared=off"));
    assert!(error("1G,hugepage_size=2M").contains("hugepages=on"));
    assert!(error("1G,hugepages,hugepage_size=4M").contains("2M or 1G"));
    assert!(error("1G,hugepages,thp=on").contains("thp=on"));
    assert!(error("1G,shared=yes").contains("shared=yes"));
    assert!(error("lots").contains("'lots'"));
}
