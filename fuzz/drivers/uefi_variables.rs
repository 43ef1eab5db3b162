//! Variable services over a file of the input, whose variables the rest of the input sets.

use uefi_nvram::CustomVariables;
use uefi_nvram::MemoryNvram;
use uefi_nvram::SecureBoot;
use uefi_nvram::VariableServices;
use uefi_nvram::verify_detached;
use uefi_nvram_storage::Name;
use uefi_nvram_storage::NameQuirk;
use uefi_nvram_storage::VariableKey;
use uefi_nvram_storage::Variables;
use uefi_specs::guid;

/// Runs one input.
pub(crate) fn run(data: &[u8]) {
    let _ = CustomVariables::from_json(data);
    if let Ok(signer) = verify_detached(data, &[b"content"]) {
        let _ = signer.require_trust(&[data]);
    }
    let Some((&[kind, attributes, len], rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let (file, call) = rest.split_at((usize::from(len) * 4).min(rest.len()));
    let secure_boot = SecureBoot::default();
    let open = |file: &[u8]| VariableServices::new(Box::new(MemoryNvram), Some(file), &secure_boot);
    // A file without variables, or one that is none.
    let Ok(mut services) = open(file).or_else(|_| open(&[])) else {
        return;
    };
    let (vendor, name) = match kind % 5 {
        0 => (guid::GLOBAL_VARIABLE, "PK"),
        1 => (guid::GLOBAL_VARIABLE, "KEK"),
        2 => (guid::IMAGE_SECURITY_DATABASE, "db"),
        3 => (guid::IMAGE_SECURITY_DATABASE, "dbx"),
        _ => (guid::GLOBAL_VARIABLE, "BootOrder"),
    };
    let name = Name::new(name).expect("a name without NUL");
    let key = VariableKey { vendor, name };
    if kind & 0x80 != 0 {
        services.exit_boot_services();
    }
    let before = services.save();
    match services.set(&key, attributes.into(), call) {
        Ok(()) => {
            let file = services.variables().encode();
            let decoded = Variables::decode(&file, NameQuirk::Refuse);
            assert_eq!(decoded.as_ref(), Ok(services.variables()));
        }
        Err(_) => assert_eq!(services.save(), before, "a failed call changed something"),
    }
    let mut last = None;
    while let Ok(key) = services.next(last.as_ref()) {
        assert!(services.get(key).is_ok());
        last = Some(key.clone());
    }
}
