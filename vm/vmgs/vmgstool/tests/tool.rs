//! The tool without a terminal, as in scripts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dir;

use dir::Dir;
use serde_json::Value;
use std::path::Path;
use std::path::PathBuf;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_format::FileId;

#[test]
fn create_follows_its_options() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    assert_eq!(dir.get("a.vmgs").len(), 4_194_816);
    assert_eq!(dir.get("a.vmgs")[4_194_304..4_194_312], *b"conectix");
    let before = dir.get("a.vmgs");
    assert_eq!(dir.code("create -f a.vmgs"), 1);
    assert_eq!(dir.get("a.vmgs"), before);
    // Replacing a store of the same size keeps the disk's GUID.
    dir.ok("create -f a.vmgs --force-create");
    assert_eq!(dir.get("a.vmgs")[4_194_304..], before[4_194_304..]);
    dir.ok("create --filepath a.vmgs --filesize 32768 --forcecreate");
    assert_eq!(dir.get("a.vmgs").len(), 33_280);
    for size in [0, 512, 16383, 16385] {
        assert_eq!(dir.code(&format!("create -f b.vmgs -s {size}")), 1);
    }
    // No store is created if the key cannot be read.
    assert_eq!(dir.code("create -f b.vmgs -k nokey -e AES_GCM"), 1);
    dir.put("shortkey", &[1; 31]);
    assert_eq!(dir.code("create -f b.vmgs -k shortkey -e AES_GCM"), 1);
    assert_eq!(dir.code("create -f b.vmgs -k shortkey"), 2);
    assert_eq!(dir.names(), ["a.vmgs", "shortkey"]);
}

#[test]
fn every_exit_code() {
    let dir = Dir::new();
    dir.put("key", &[1; 32]);
    dir.put("data", b"data");
    assert_eq!(dir.code("create"), 2);
    assert_eq!(dir.code("query-size -f none.vmgs -i 1"), 1);
    dir.put("empty.vmgs", b"");
    assert_eq!(dir.code("query-size -f empty.vmgs -i 1"), 3);
    dir.put("raw.vmgs", &[0; 8192]);
    assert_eq!(dir.code("query-size -f raw.vmgs -i 1"), 1);
    assert_eq!(dir.code("query-size --raw -f raw.vmgs -i 1"), 3);
    dir.ok("create -f a.vmgs");
    assert_eq!(dir.code("query-size -f a.vmgs -i 1"), 4);
    assert_eq!(dir.code("dump -f a.vmgs -i BIOS_NVRAM"), 4);
    assert_eq!(dir.code("delete -f a.vmgs -i 5"), 4);
    assert_eq!(dir.code("query-encryption -f a.vmgs"), 2);
    assert_eq!(dir.code("dump -f a.vmgs -i 0"), 1);
    assert_eq!(dir.code("write -f a.vmgs -i 64 -d data"), 1);
    assert_eq!(dir.code("write -f a.vmgs -i bios_nvram -d data"), 2);
    assert_eq!(dir.code("dump -f a.vmgs -i 1 -k key"), 1, "not encrypted");

    let mut image = dir.get("a.vmgs");
    image[512..520].copy_from_slice(b"EFI PART");
    dir.put("v1.vmgs", &image);
    for command in [
        "dump-headers -f",
        "query-encryption -f",
        "dump-file-table -f",
    ] {
        assert_eq!(dir.code(&format!("{command} v1.vmgs")), 5);
    }
    let mut image = dir.get("a.vmgs");
    image[..8192].fill(0);
    dir.put("zero.vmgs", &image);
    assert_eq!(dir.code("dump-file-table -f zero.vmgs"), 3);
    let mut image = dir.get("a.vmgs");
    image[20] ^= 1;
    dir.put("bad.vmgs", &image);
    assert_eq!(dir.code("dump-headers -f bad.vmgs"), 1);
    let output = dir.run("query-size -f bad.vmgs -i 1");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"", "standard output is for answers");

    dir.ok("encrypt -f a.vmgs -k key -e AES_GCM");
    assert_eq!(dir.code("query-encryption -f a.vmgs"), 7);
    dir.ok("write -f a.vmgs -i 7 -d data");
    assert_eq!(dir.code("query-encryption -f a.vmgs"), 6);
    dir.ok("write -f a.vmgs -i KEY_PROTECTOR -d data");
    assert_eq!(dir.code("query-encryption -f a.vmgs"), 0);
    assert_eq!(dir.code("encrypt -f a.vmgs -k key -e AES_GCM"), 1);
    assert_eq!(
        dir.code("move -f a.vmgs --src 7 --dst 8"),
        1,
        "needs the key"
    );
    assert_eq!(dir.code("verify -f a.vmgs"), 0);
}

#[test]
fn content_is_stored_and_read_back() {
    let dir = Dir::new();
    dir.put("key", &[1; 32]);
    dir.ok("create -f a.vmgs -s 33554432 -k key -e AES_GCM");
    for (id, size) in [(20, 0usize), (21, 1), (22, 4095), (23, 4097), (24, 3 << 20)] {
        let content: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
        dir.put("in", &content);
        dir.ok(&format!("write -f a.vmgs -i {id} -d in -k key"));
        dir.ok(&format!("write -f a.vmgs -i {} -d in", id + 10));
        assert_eq!(
            dir.ok(&format!("query-size -f a.vmgs -i {id}")),
            format!("{size}\n")
        );
        for id in [id, id + 10] {
            dir.ok(&format!("dump -f a.vmgs -i {id} -d out -k key"));
            assert_eq!(dir.get("out"), content);
            let raw = dir.run(&format!("dump -f a.vmgs -i {id} -k key --raw-stdout"));
            assert_eq!(raw.stdout, content);
        }
        // Without the key, the stored bytes are dumped, with exit code 0.
        dir.ok(&format!("dump -f a.vmgs -i {id} -d out"));
        assert_eq!(dir.get("out") == content, size == 0);
    }
    // An existing file is not replaced, unless that is allowed or the file is empty.
    dir.put("in", b"new");
    assert_eq!(dir.code("write -f a.vmgs -i 21 -d in -k key"), 1);
    assert_eq!(dir.code("inject -f a.vmgs -i 21 -d in -k key"), 1);
    dir.ok("write -f a.vmgs -i 20 -d in -k key");
    dir.ok("write -f a.vmgs -i 21 -d in -k key --allow-overwrite");
    // Without the key, the file becomes unencrypted, as scripts expect; the tables then disagree.
    dir.ok("write -f a.vmgs -i 22 -d in --allowoverwrite");
    assert_eq!(dir.ok("dump -f a.vmgs -i 22 --raw-stdout"), "new");
    assert_eq!(dir.code("dump -f a.vmgs -i 22 -k key --raw-stdout"), 1);
    assert_eq!(dir.code("verify -f a.vmgs -k key"), 9);
    dir.ok("accept-plain -f a.vmgs -i 22 -k key");
    assert_eq!(dir.ok("dump -f a.vmgs -i 22 -k key --raw-stdout"), "new");
    assert_eq!(dir.code("verify -f a.vmgs -k key"), 0);
    dir.ok("move -f a.vmgs --src-file-id 21 --dst-file-id 17 -k key");
    assert_eq!(dir.code("move -f a.vmgs --src 17 --dst 23 -k key"), 1);
    dir.ok("move -f a.vmgs --src 17 --dst 23 -k key --allow-overwrite");
    assert_eq!(dir.ok("dump -f a.vmgs -i 23 -k key --raw-stdout"), "new");
    dir.ok("delete -f a.vmgs -i 23");
    assert_eq!(dir.code("query-size -f a.vmgs -i 23"), 4);

    dir.ok("extract -f a.vmgs -k key -d all");
    assert_eq!(dir.get("all/22"), b"new");
    assert_eq!(dir.code("extract -f a.vmgs -k key -d all"), 1, "they exist");
    dir.ok("extract -f a.vmgs -k key -d all --force");
    dir.put("out", b"precious");
    assert_eq!(dir.code("extract -f a.vmgs -k key -i 22 -d out"), 1);
    assert_eq!(dir.get("out"), b"precious");
    dir.ok("dump -f a.vmgs -k key -i 22 -d out");
    assert_eq!(dir.get("out"), b"new");
}

#[test]
fn keys_change() {
    let dir = Dir::new();
    dir.ok("test make-key --key-path one");
    dir.ok("test make-key --key-path two --repeated z");
    assert_eq!(dir.get("two"), [b'z'; 32]);
    assert_eq!(dir.code("test make-key --key-path two"), 1);
    dir.put("in", b"secret");
    dir.ok("create -f a.vmgs -k one -e AES_GCM");
    dir.ok("write -f a.vmgs -i TPM_NVRAM -d in -k one");
    dir.ok("update-key -f a.vmgs -k one -n two -e AES_GCM");
    assert_eq!(dir.code("dump -f a.vmgs -i 3 -k one"), 1);
    assert_eq!(dir.ok("dump -f a.vmgs -i 3 -k two --raw-stdout"), "secret");
    dir.ok("rekey -f a.vmgs -k two");
    assert_eq!(dir.ok("dump -f a.vmgs -i 3 -k two --raw-stdout"), "secret");
    dir.ok("test two-keys -f b.vmgs");
    let output = dir.run("query-encryption --json -f b.vmgs");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["keys"], 2);
    for key in ["firstkey.bin", "secondkey.bin"] {
        dir.ok(&format!("ls -f b.vmgs -k {key}"));
    }
    dir.ok("update-key -f b.vmgs -k secondkey.bin -n two -e AES_GCM");
    assert_eq!(dir.code("ls -f b.vmgs -k firstkey.bin"), 1);
    dir.ok("ls -f b.vmgs -k two");
}

#[test]
fn old_spellings_work() {
    let dir = Dir::new();
    dir.put("in", b"x");
    dir.ok("-Create -FilePath a.vmgs -s 65536");
    dir.ok("-w -f a.vmgs -i 5 -d in");
    dir.ok("-w -f a.vmgs -i 5 -d in -ow");
    assert_eq!(dir.ok("-qs -f a.vmgs -i 5"), "1\n");
    dir.ok("-r -f a.vmgs -i 5 -d out");
    assert_eq!(dir.get("out"), b"x");
    assert!(dir.ok("-rh -f a.vmgs").contains("Active header is 1"));
}

#[test]
fn every_query_has_json_and_text() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    dir.put("token", &[0xff; 8]);
    dir.ok("write -f a.vmgs -i HIBERNATION_TOKEN -d token");
    dir.put("tpm", &[7; 32768]);
    dir.ok("write -f a.vmgs -i HIBERNATION_FIRMWARE -d tpm");
    let headers = dir.json("dump-headers --json -f a.vmgs");
    assert_eq!(headers["active_header"], 1);
    assert_eq!(headers["headers"][0]["sequence"], 3);
    assert_eq!(
        dir.json("query-size --json -f a.vmgs -i 14")["valid_bytes"],
        8
    );
    let table = dir.json("--json dump-file-table -f a.vmgs");
    assert_eq!(table["files"][1]["name"], "HIBERNATION_TOKEN");
    let list = dir.json("ls --json -f a.vmgs");
    assert_eq!(
        list["files"][0]["summary"],
        "hibernated, firmware image stored"
    );
    assert_eq!(
        list["files"][1]["summary"],
        "not a firmware image (state of a virtual TPM?)"
    );
    // The token says that firmware is stored, but the file is not firmware.
    let answer: Value = serde_json::from_slice(&dir.run("verify --json -f a.vmgs").stdout).unwrap();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["findings"][0]["code"], "missing_firmware");
    let view = dir.json("dump --json -f a.vmgs -i 14");
    assert_eq!(view["content"]["token"], "0xffffffffffffffff");
    assert!(
        dir.ok("dump --decode -f a.vmgs -i 14")
            .starts_with("hibernated, firmware image stored")
    );
    let output = dir.run("query-encryption --json -f a.vmgs");
    assert_eq!(output.status.code(), Some(2));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["scheme"], "none");
    assert_eq!(
        dir.ok("dump -f a.vmgs -i 14"),
        format!("{}{}// ........\n", "0xff,".repeat(8), " ".repeat(41))
    );
    let table = dir.ok("dump-file-table -f a.vmgs");
    let row = "     14     HIBERNATION_TOKEN          4096         8   false  \n";
    assert!(table.contains(row), "{table}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(dir.ok(&format!("completions {shell}")).contains("vmgstool"));
    }
}

#[test]
fn stored_firmware_is_shown_verified_and_extracted() {
    use firmware_hibernation::FirmwareDescription;
    use firmware_hibernation::FirmwareImage;
    use firmware_hibernation::NewRecord;
    use firmware_hibernation::PinnedFiles;
    use std::io::Read;
    let dir = Dir::new();
    let image: Vec<u8> = (0..8192).map(|i| (i / 7) as u8).collect();
    let parts = FirmwareImage::new().part("code", 0xffff_e000, image.clone());
    let pinned = PinnedFiles::from([("etc/acpi/tables".into(), b"tables".to_vec())]);
    let mut description = FirmwareDescription::reset_vector();
    description.version = Some("test 1".into());
    let view = platform_digest::PlatformView::default();
    let record = NewRecord::new(&description, parts, &pinned, &view).unwrap();
    let mut good = Vec::new();
    record.stream().read_to_end(&mut good).unwrap();
    dir.put("good", &good);
    dir.put("token", &[0xff; 8]);
    dir.ok("create -f a.vmgs");
    dir.ok("inject -f a.vmgs -i HIBERNATION_TOKEN -d token");
    // The token says that firmware is stored, but there is none.
    assert_eq!(dir.code("verify -f a.vmgs"), 9);
    let answer: Value = serde_json::from_slice(&dir.run("verify --json -f a.vmgs").stdout).unwrap();
    assert_eq!(answer["findings"][0]["code"], "missing_firmware");
    dir.ok("inject -f a.vmgs -i HIBERNATION_FIRMWARE -d good");
    assert_eq!(dir.code("verify -f a.vmgs"), 0);
    let view = dir.json("dump --json -f a.vmgs -i 19");
    let content = &view["content"];
    assert_eq!(content["digests_match"], true);
    assert_eq!(content["load_gpa"], "0xffffe000");
    assert_eq!(content["entry_rule"], "reset_vector");
    assert_eq!(content["firmware_version"], "test 1");
    assert_eq!(content["sections"][2]["name"], "etc/acpi/tables");
    let sha256 = platform_digest::Digest::of(&image).to_string();
    assert_eq!(content["image_sha256"], sha256.as_str());
    assert!(
        dir.ok("ls -f a.vmgs")
            .contains("8192 bytes at 0xffffe000, all digests right")
    );
    assert!(
        dir.ok("dump --decode -f a.vmgs -i 19")
            .contains("etc/acpi/tables")
    );
    dir.ok("extract -f a.vmgs --image -d image");
    assert_eq!(dir.get("image"), image);
    dir.ok("extract -f a.vmgs --section etc/acpi/tables -d tables");
    assert_eq!(dir.get("tables"), b"tables");
    assert_eq!(
        dir.code("extract -f a.vmgs --section nothing -d nothing"),
        1
    );
    assert!(!dir.path("nothing").exists());

    // The same where the VMM puts it if another program has the usual file.
    dir.put("tpm", &[7; 32768]);
    dir.ok("create -f other.vmgs");
    dir.ok("inject -f other.vmgs -i HIBERNATION_TOKEN -d token");
    dir.ok("inject -f other.vmgs -i 19 -d tpm");
    assert_eq!(dir.code("verify -f other.vmgs"), 9);
    dir.ok("inject -f other.vmgs -i 56 -d good");
    assert_eq!(dir.code("verify -f other.vmgs"), 0);
    assert_eq!(
        dir.json("dump --json -f other.vmgs -i 56")["content"],
        *content
    );
    dir.ok("extract -f other.vmgs --image -d other_image");
    assert_eq!(dir.get("other_image"), image);

    // A flipped bit in the image is shown and found, and nothing is extracted.
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 4;
    dir.put("bad", &bad);
    dir.ok("inject -f a.vmgs -i HIBERNATION_FIRMWARE -d bad --force");
    assert!(
        dir.ok("ls -f a.vmgs")
            .contains("the digest of its section code is wrong")
    );
    let view = dir.json("dump --json -f a.vmgs -i 19");
    assert_eq!(view["content"]["digests_match"], false);
    assert_eq!(dir.code("verify -f a.vmgs"), 9);
    assert_eq!(dir.code("extract -f a.vmgs --image -d never"), 1);
    assert!(!dir.path("never").exists());
    // Truncated.
    dir.put("short", &good[..good.len() - 1]);
    dir.ok("inject -f a.vmgs -i HIBERNATION_FIRMWARE -d short --force");
    assert!(dir.ok("ls -f a.vmgs").contains("corrupt firmware"));
    assert_eq!(dir.code("verify -f a.vmgs"), 9);
}

#[test]
fn verify_reports_the_severity() {
    let dir = Dir::new();
    dir.put("in", &[5; 5000]);
    dir.ok("create -f a.vmgs");
    dir.ok("write -f a.vmgs -i 5 -d in");
    dir.ok("write -f a.vmgs -i 5 -d in --force");
    let good = dir.get("a.vmgs");
    // The older header.
    let mut image = good.clone();
    image[512] ^= 1;
    dir.put("a.vmgs", &image);
    assert_eq!(dir.code("verify -f a.vmgs"), 8);
    assert_eq!(dir.code("verify --strict -f a.vmgs"), 1);
    // The newer header.
    let mut image = good.clone();
    image[40] ^= 1;
    dir.put("a.vmgs", &image);
    assert_eq!(dir.code("verify -f a.vmgs"), 9);
    // A file's entry.
    let table = u32::from_le_bytes(good[24..28].try_into().unwrap()) as usize * 4096;
    let mut image = good.clone();
    image[table + 5 * 64] = 0xff;
    image[table + 5 * 64 + 1] = 0xff;
    dir.put("a.vmgs", &image);
    let output = dir.run("verify --json -f a.vmgs");
    assert_eq!(output.status.code(), Some(9));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["findings"][0]["code"], "damaged-file");
    assert_eq!(answer["findings"][0]["file_id"], 5);
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

#[test]
fn variables_are_shown_as_in_the_golden_files() {
    let dir = Dir::new();
    for (encrypt, key) in [("", ""), (" -k key -e AES_GCM", " -k key")] {
        dir.put("key", &[1; 32]);
        dir.put("nvram", &std::fs::read(golden().join("nvram.bin")).unwrap());
        dir.ok(&format!("create --force -f a.vmgs{encrypt}"));
        dir.ok(&format!("write -f a.vmgs -i BIOS_NVRAM -d nvram{key}"));
        let shown = dir.ok(&format!("uefi-nvram dump -f a.vmgs{key}"));
        let expected = std::fs::read_to_string(golden().join("nvram.txt")).unwrap();
        assert_eq!(shown, expected);
        let truncated = dir.ok(&format!("uefi-nvram dump -t -f a.vmgs{key}"));
        // Nodes of device paths are not truncated.
        let mut lines = truncated.lines().filter(|line| !line.contains("Media("));
        assert!(lines.all(|line| line.len() <= 80));
        assert!(truncated.contains("..."));
        assert_eq!(
            dir.ok(&format!("uefi-nvram list -f a.vmgs{key}"))
                .lines()
                .count(),
            7
        );
        // Exporting and importing into another store gives the same bytes.
        dir.ok(&format!(
            "--json uefi-nvram export -f a.vmgs{key} -o vars.json"
        ));
        dir.ok("create --force -f b.vmgs");
        dir.ok("uefi-nvram import -f b.vmgs -d vars.json");
        assert_eq!(dir.ok("uefi-nvram dump -f b.vmgs"), expected);
        std::fs::remove_file(dir.path("vars.json")).unwrap();
    }
    let export = golden().join("export_v1.json");
    let shown = dir.ok(&format!(
        "uefi-nvram dump-from-json -f {}",
        export.display()
    ));
    assert!(
        shown.contains("Boot Order: 1 2\n") && !shown.contains("Timestamp"),
        "{shown}"
    );
}

#[test]
fn variables_are_edited_in_one_commit() {
    let dir = Dir::new();
    dir.put("key", &[1; 32]);
    dir.ok("create -f a.vmgs -k key -e AES_GCM");
    dir.put("nvram", &std::fs::read(golden().join("nvram.bin")).unwrap());
    dir.ok("write -f a.vmgs -i BIOS_NVRAM -d nvram -k key");
    assert_eq!(
        dir.code("uefi-nvram remove-boot-entries -f a.vmgs"),
        1,
        "needs the key"
    );
    let before = dir.get("a.vmgs");
    let dry = dir.ok("uefi-nvram remove-boot-entries -n -f a.vmgs -k key");
    assert_eq!(dir.get("a.vmgs"), before);
    let (_, sequence) = dir.store("a.vmgs").active_header();
    assert_eq!(
        dir.ok("uefi-nvram remove-boot-entries -f a.vmgs -k key"),
        dry
    );
    assert_eq!(dir.store("a.vmgs").active_header().1, sequence + 1);
    // Names with digits of either case, and only those in BootOrder.
    let left = dir.ok("uefi-nvram list -f a.vmgs -k key");
    for (line, name) in dry.lines().zip(["Boot0001", "Boot000A", "Boot000b"]) {
        assert!(line.contains(name) && !left.contains(name), "{name}");
    }
    assert_eq!(
        dry.lines().nth(1).unwrap(),
        "1: Boot000A: EfiLoadOption { attributes: 1, description: \"Odd\", device_paths: \
         [Messaging(Scsi(EfiScsiDevice { target_id: 0, logical_unit_num: 3 }))], opt: Some([6f, 64, 64]) }"
    );
    assert!(!left.contains("BootOrder"));
    for name in ["Boot0009", "Lang", "dbx"] {
        assert!(left.contains(name), "{name}");
    }
    let vendor = "{8BE4DF61-93CA-11D2-AA0D-00E098032B8C}";
    let remove = format!("uefi-nvram remove-entry -f a.vmgs -k key -n Lang -v {vendor}");
    dir.ok(&remove);
    let before = dir.get("a.vmgs");
    assert_eq!(dir.code(&remove), 1);
    assert_eq!(
        dir.get("a.vmgs"),
        before,
        "nothing matched, nothing is written"
    );
    dir.put("data", b"fra");
    let add = format!("uefi-nvram add -f a.vmgs -k key -n Lang -v {vendor} -d data");
    dir.ok(&add);
    assert_eq!(dir.code(&add), 1, "it exists");
    dir.ok(&format!("{add} --force"));
    assert!(
        dir.store("a.vmgs")
            .file_info(FileId::BIOS_NVRAM)
            .unwrap()
            .encrypted
    );
}

#[test]
fn a_store_in_use_is_refused() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    let store = dir.store("a.vmgs");
    assert_eq!(dir.code("query-size -f a.vmgs -i 63"), 1);
    assert_eq!(dir.code("create -f a.vmgs --force-create"), 1);
    drop(store);
    dir.ok("query-size -f a.vmgs -i 63");
}

#[test]
fn small_stores_grow() {
    let dir = Dir::new();
    dir.put("image", &vec![1; 6 << 20]);
    dir.ok("create -f a.vmgs");
    assert_eq!(dir.code("inject -f a.vmgs -i 19 -d image"), 1);
    dir.ok("grow -f a.vmgs -s 33554432");
    dir.ok("inject -f a.vmgs -i 19 -d image");
    dir.ok("inject -f a.vmgs -i 19 -d image --force");
    assert_eq!(dir.code("grow -f a.vmgs -s 4194304"), 1);
    dir.ok("scrub -f a.vmgs");
    dir.ok("verify -f a.vmgs");
}

#[test]
fn reading_a_marked_store_does_not_change_it() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    let device =
        FileDevice::open(&dir.path("a.vmgs"), Container::Vhd1, StoreAccess::ReadWrite).unwrap();
    let mut store = Vmgs::format_once(Box::new(device), OpenOptions::default()).unwrap();
    store.write(FileId(5), Protection::Plain, b"x").unwrap();
    drop(store);
    let before = dir.get("a.vmgs");
    assert_eq!(dir.json("ls --json -f a.vmgs")["reprovisioned"], true);
    dir.ok("dump -f a.vmgs -i 5");
    assert_eq!(dir.get("a.vmgs"), before);
    // A command that changes the store opens it normally, which clears the marker.
    dir.put("in", b"y");
    dir.ok("write -f a.vmgs -i 5 -d in --force");
    assert_eq!(dir.json("ls --json -f a.vmgs")["reprovisioned"], false);
}

/// A store without keys that has an encrypted file.
#[test]
fn encrypted_files_without_a_key_are_shown_as_stored() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    dir.put("in", b"ciphertext");
    dir.ok("write -f a.vmgs -i 5 -d in");
    let mut image = dir.get("a.vmgs");
    let (slot, _) = dir.store("a.vmgs").active_header();
    let header = slot * 512;
    let table = u32::from_le_bytes(image[header + 24..header + 28].try_into().unwrap());
    image[table as usize * 4096 + 5 * 64 + 44] = 3;
    dir.put("a.vmgs", &image);
    let output = dir.run("dump -f a.vmgs -i 5 --raw-stdout");
    assert_eq!(output.stdout, b"ciphertext");
    assert!(String::from_utf8_lossy(&output.stderr).contains("as it is stored"));
}

#[test]
fn variables_that_are_left_out_are_reported() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    let good = std::fs::read(golden().join("nvram.bin")).unwrap();
    // Another variable, whose name of two bytes has no NUL.
    let mut entry = vec![0; 50];
    entry[4] = 50;
    entry[44] = 2;
    entry[48] = b'x';
    dir.put("nvram", &[&good[..], &entry].concat());
    dir.put("good", &good);
    for (name, mentioned) in [("nvram", true), ("good", false)] {
        dir.ok(&format!("inject -f a.vmgs -i BIOS_NVRAM -d {name} --force"));
        let output = dir.run("uefi-nvram list -f a.vmgs");
        assert!(output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(errors.contains("bytes=50"), mentioned, "{errors}");
        assert_eq!(output.stdout.split(|b| *b == b'\n').count(), 8);
    }
}

#[test]
fn two_keys_creates_no_keys_if_the_store_is_refused() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    assert_eq!(dir.code("test two-keys -f a.vmgs"), 1);
    assert_eq!(dir.names(), ["a.vmgs"]);
    dir.ok("test two-keys -f a.vmgs --force");
    assert_eq!(dir.names(), ["a.vmgs", "firstkey.bin", "secondkey.bin"]);
}

/// Long options have two spellings, both of which scripts use.
#[test]
fn options_without_hyphens_work() {
    let dir = Dir::new();
    dir.put("key", &[1; 32]);
    dir.put("new", &[2; 32]);
    dir.put("in", b"x");
    for command in [
        "test make-key --keypath made --forcecreate",
        "test two-keys --filepath two.vmgs --firstkeypath one --secondkeypath other --forcecreate",
        "create --filepath a.vmgs --filesize 65536 --keypath key --encryptionalgorithm AES_GCM",
        "write --filepath a.vmgs --datapath in --fileid 5 --keypath key",
        "write --filepath a.vmgs --datapath in --fileid 5 --keypath key --allowoverwrite",
        "dump --filepath a.vmgs --fileid 5 --keypath key --rawstdout",
        "dump --filepath a.vmgs --fileid 5 --keypath key --datapath out",
        "move --filepath a.vmgs --srcfileid 5 --dstfileid 6 --keypath key --allowoverwrite",
        "move --filepath a.vmgs --src 6 --dst 5 --keypath key",
        "update-key --filepath a.vmgs --keypath key --newkeypath new --encryptionalgorithm AES_GCM",
        "query-size --filepath a.vmgs --fileid 5",
        "dump-file-table --filepath a.vmgs --keypath new",
        "delete --filepath a.vmgs --fileid 5",
    ] {
        dir.ok(command);
    }
    let export = golden().join("export_v1.json");
    dir.ok(&format!(
        "uefi-nvram dump-from-json --filepath {} --outpath out --truncate",
        export.display()
    ));
}
