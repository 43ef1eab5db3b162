//! What scripts for the reference's vmgstool rely on: spellings, exit codes and text.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dir;

use dir::Dir;
use std::path::Path;

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    std::fs::read_to_string(path.join(name)).unwrap()
}

#[test]
fn headers_and_file_table_are_laid_out_as_scripts_parse_them() {
    let dir = Dir::new();
    dir.put("five", &[5; 5]);
    dir.put("token", &[0; 8]);
    dir.put("large", &[5; 5000]);
    dir.ok("create -f a.vmgs");
    assert_eq!(dir.ok("dump-headers -f a.vmgs"), golden("headers.txt"));
    for (id, data) in [("1", "five"), ("14", "token"), ("33", "large")] {
        dir.ok(&format!("write -f a.vmgs -i {id} -d {data}"));
    }
    assert_eq!(
        dir.ok("dump-file-table -f a.vmgs"),
        golden("file_table.txt")
    );
    // Without an active header, and with the exit code of its cause.
    let mut image = dir.get("a.vmgs");
    image[..1024].fill(0);
    dir.put("a.vmgs", &image);
    let output = dir.run("dump-headers -f a.vmgs");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\nUnable to determine active header"),
        "{text}"
    );
}

#[test]
fn a_store_without_variables_has_none() {
    let dir = Dir::new();
    dir.ok("create -f a.vmgs");
    for command in ["dump", "list"] {
        assert_eq!(dir.ok(&format!("uefi-nvram {command} -f a.vmgs")), "");
    }
    let exported = dir.json("uefi-nvram export -f a.vmgs");
    assert_eq!(exported["variables"], serde_json::json!([]));
    assert_eq!(dir.code("uefi-nvram remove-boot-entries -f a.vmgs"), 1);
    assert_eq!(dir.code("uefi-nvram remove-boot-entries -n -f a.vmgs"), 1);
    let remove = format!("uefi-nvram remove-entry -f a.vmgs -n Lang -v {GLOBAL}");
    assert_eq!(dir.code(&remove), 1);
    assert_eq!(
        dir.code("query-size -f a.vmgs -i 1"),
        4,
        "nothing was written"
    );
}

#[test]
fn ids_beyond_the_tables_are_files_that_do_not_exist() {
    let dir = Dir::new();
    dir.put("in", b"x");
    dir.ok("create -f a.vmgs");
    dir.ok("write -f a.vmgs -i 5 -d in");
    for id in ["64", "1000", "4294967295"] {
        for (command, code) in [
            ("query-size -f a.vmgs -i ID", 4),
            ("dump -f a.vmgs -i ID", 4),
            ("extract -f a.vmgs -i ID -d out", 4),
            ("delete -f a.vmgs -i ID", 4),
            ("move -f a.vmgs --src ID --dst 6", 4),
            ("write -f a.vmgs -i ID -d in", 1),
            ("move -f a.vmgs --src 5 --dst ID", 1),
        ] {
            assert_eq!(dir.code(&command.replace("ID", id)), code, "{command} {id}");
        }
    }
    // The tables can only be measured.
    for id in ["0", "63"] {
        assert_eq!(dir.ok(&format!("query-size -f a.vmgs -i {id}")), "4096\n");
        assert_eq!(dir.code(&format!("dump -f a.vmgs -i {id}")), 1);
        assert_eq!(dir.code(&format!("delete -f a.vmgs -i {id}")), 1);
    }
}

#[test]
fn a_bad_vendor_is_a_failure_of_the_command() {
    let dir = Dir::new();
    dir.put("in", b"x");
    dir.ok("create -f a.vmgs");
    dir.ok(&format!("uefi-nvram add -f a.vmgs -n X -v {GLOBAL} -d in"));
    for vendor in ["no-guid", "8be4df61-93ca-11d2-aa0d", "{8be4df61}"] {
        for command in ["remove-entry -n X", "add -n Y -d in"] {
            let args = format!("uefi-nvram {command} -f a.vmgs -v {vendor}");
            let output = dir.run(&args);
            assert_eq!(output.status.code(), Some(1), "{args}");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(told.contains(vendor), "{told}");
        }
    }
    let upper = GLOBAL.to_uppercase();
    dir.ok(&format!(
        "uefi-nvram remove-entry -f a.vmgs -n X -v {{{upper}}}"
    ));
}

#[test]
fn variables_in_json_have_the_order_of_the_text() {
    let dir = Dir::new();
    dir.put("in", b"xy");
    dir.ok("create -f a.vmgs");
    dir.ok(&format!("uefi-nvram add -f a.vmgs -n X -v {GLOBAL} -d in"));
    let document = dir.json("uefi-nvram dump --json -f a.vmgs");
    let variable = document["variables"][0].as_object().unwrap();
    let names: Vec<_> = variable.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["vendor", "name", "attributes", "size", "timestamp", "data"]
    );
    assert_eq!(variable["vendor"], GLOBAL);
    assert_eq!(variable["size"], 2);
}

#[test]
fn every_command_that_reads_content_takes_the_key_from_a_file() {
    let dir = Dir::new();
    dir.put("key", &[1; 32]);
    dir.put("other", &[2; 32]);
    dir.put("in", b"content");
    dir.ok("create --filepath a.vmgs --keypath key --encryptionalgorithm AES_GCM");
    dir.ok("write --filepath a.vmgs --keypath key --fileid 5 --datapath in");
    dir.ok(&format!(
        "uefi-nvram add --filepath a.vmgs --keypath key -n X -v {GLOBAL} -d in"
    ));
    dir.ok("uefi-nvram export --filepath a.vmgs --keypath key -o vars.json");
    for command in [
        "dump -i 5",
        "extract -i 5 -d out --force",
        "query-size -i 5",
        "dump-file-table",
        "ls",
        "verify",
        "move --src 5 --dst 6",
        "move --src 6 --dst 5",
        "accept-plain -i 5",
        "scrub",
        "inject -i 7 -d in --force",
        "delete -i 7",
        "rekey",
        "uefi-nvram list",
        "uefi-nvram dump",
        "uefi-nvram export",
        "uefi-nvram import -d vars.json",
    ] {
        let with = |key: &str| dir.code(&format!("{command} --filepath a.vmgs --keypath {key}"));
        assert_eq!(with("other"), 1, "{command}");
        assert_eq!(with("key"), 0, "{command}");
    }
}

/// A store with the variables of OVMF.
fn with_flash_variables(content: &[u8]) -> Dir {
    let dir = Dir::new();
    dir.put("vars", content);
    dir.ok("create -f a.vmgs");
    dir.ok("write -f a.vmgs -i FLASH_VARIABLES -d vars");
    dir
}

#[test]
fn uefi_nvram_says_where_the_variables_of_ovmf_are() {
    let dir = with_flash_variables(&ovmf_image::constructed::variables(0x8_4000));
    dir.put("in", b"x");
    for (args, code) in [
        ("dump", 0),
        ("list", 0),
        ("export", 0),
        ("remove-boot-entries", 1),
        (
            "remove-entry -n X -v 8be4df61-93ca-11d2-aa0d-00e098032b8c",
            1,
        ),
    ] {
        let output = dir.run(&format!("uefi-nvram {args} -f a.vmgs"));
        assert_eq!(output.status.code(), Some(code), "{args}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("FLASH_VARIABLES (file 48)"), "{args}: {told}");
    }
    // With variables of both kinds, those that the command is for are meant.
    dir.ok(&format!("uefi-nvram add -f a.vmgs -n X -v {GLOBAL} -d in"));
    let output = dir.run("uefi-nvram dump -f a.vmgs");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("FLASH_VARIABLES"));
}

#[test]
fn verify_checks_the_variables_of_ovmf() {
    const LEN: usize = 0x8_4000;
    let intact = ovmf_image::constructed::variables(LEN);
    let noise: Vec<u8> = (0..LEN as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8)
        .collect();
    let mut header = intact.clone();
    header[44] ^= 1;
    let mut interrupted = intact.clone();
    interrupted.copy_within(..0x1000, LEN / 2);
    interrupted[..0x1000].fill(0xff);
    for (content, code, expected) in [
        (&intact[..], 0, None),
        (&ovmf_image::constructed::variables(0x2_0000), 0, None),
        (&interrupted, 0, Some("interrupted-variables")),
        (&noise, 9, Some("corrupt-variables")),
        (&noise[..4096], 9, Some("corrupt-variables")),
        (&header, 9, Some("corrupt-variables")),
        (&[][..], 9, Some("corrupt-variables")),
    ] {
        let dir = with_flash_variables(content);
        let output = dir.run("verify --json -f a.vmgs");
        assert_eq!(output.status.code(), Some(code), "{expected:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = answer["findings"][0]["code"].as_str();
        assert_eq!(found, expected);
        let corrupt = dir.ok("ls -f a.vmgs").contains("corrupt variables of OVMF");
        assert_eq!(corrupt, code == 9, "{expected:?}");
    }
}
