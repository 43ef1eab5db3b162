use super::*;
use crate::policy::OS_LOADER;
use crate::policy::SECURE_BOOT_ENABLE;
use crate::policy::key;
use crate::secure_boot::SecureBootKeys;
use crate::secure_boot::Signature;
use crate::storage::MemoryNvram;
use crate::storage::NvramStorageError;
use crate::storage::VmgsNvram;
use crate::test_keys::KEK;
use crate::test_keys::LEAF;
use crate::test_keys::PK;
use crate::test_keys::STRANGER;
use crate::test_keys::TestKey;
use crate::test_keys::authenticated;
use crate::test_keys::year;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use uefi_nvram_storage::Name;
use uefi_specs::guid::IMAGE_SECURITY_DATABASE;
use uuid::Uuid;
use vmgs::FileId;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs_broker::Broker;

const NV_BS: u32 = NON_VOLATILE | BOOTSERVICE_ACCESS;
const NV_BS_RT: u32 = NV_BS | RUNTIME_ACCESS;
const SIGNED: u32 = NV_BS_RT | TIME_BASED_AUTHENTICATED_WRITE_ACCESS;
const VENDOR: Uuid = Uuid::from_u128(0x1234);

fn services() -> VariableServices {
    VariableServices::new(Box::new(MemoryNvram), None, &SecureBoot::default()).unwrap()
}

/// Services of a machine with keys, which is not in setup mode.
fn with_keys() -> VariableServices {
    let certificate = |key: &TestKey| Signature::X509(key.certificate.to_vec());
    let secure_boot = SecureBoot {
        is_enabled: true,
        keys: SecureBootKeys {
            pk: Some(certificate(&PK)),
            kek: vec![certificate(&KEK)],
            db: vec![certificate(&STRANGER)],
            dbx: vec![Signature::Sha256([1; 32])],
            ..SecureBootKeys::default()
        },
    };
    VariableServices::new(Box::new(MemoryNvram), None, &secure_boot).unwrap()
}

fn other(name: &str) -> VariableKey {
    key(VENDOR, name)
}

fn pk() -> VariableKey {
    key(GLOBAL_VARIABLE, "PK")
}

fn db() -> VariableKey {
    key(IMAGE_SECURITY_DATABASE, "db")
}

fn dbx() -> VariableKey {
    key(IMAGE_SECURITY_DATABASE, "dbx")
}

fn setup_mode(services: &VariableServices) -> u8 {
    services
        .get(&key(GLOBAL_VARIABLE, "SetupMode"))
        .unwrap()
        .data[0]
}

fn digest_list(digests: &[u8]) -> Vec<u8> {
    let signatures = digests.iter().map(|byte| SignatureData {
        owner: Uuid::from_u128(9),
        data: vec![*byte; 32],
    });
    let list = SignatureList {
        kind: CERT_SHA256,
        header: Vec::new(),
        signatures: signatures.collect(),
    };
    list.encode()
}

#[test]
fn a_variable_is_set_replaced_and_deleted() {
    let mut s = services();
    let key = other("a");
    assert_eq!(s.get(&key), Err(EfiStatus::NOT_FOUND));
    assert_eq!(s.set(&key, NV_BS, b"one"), Ok(()));
    assert_eq!(s.get(&key).unwrap().data, b"one");
    assert_eq!(s.set(&key, NV_BS, b"2"), Ok(()));
    assert_eq!(s.set(&key, NV_BS | APPEND_WRITE, b"34"), Ok(()));
    assert_eq!(s.set(&key, NV_BS | APPEND_WRITE, b""), Ok(()));
    let variable = s.get(&key).unwrap();
    assert_eq!((&*variable.data, variable.attributes), (&b"234"[..], NV_BS));
    assert_eq!(s.set(&key, NV_BS, b""), Ok(()));
    assert_eq!(s.set(&key, NV_BS, b""), Err(EfiStatus::NOT_FOUND));
    // Appending creates a variable.
    assert_eq!(s.set(&key, NV_BS | APPEND_WRITE, b"5"), Ok(()));
    assert_eq!(s.get(&key).unwrap().attributes, NV_BS);
    assert_eq!(s.set(&key, 0, b"any data"), Ok(()));
    assert_eq!(s.get(&key), Err(EfiStatus::NOT_FOUND));
}

#[test]
fn attributes_are_checked_in_the_documented_order() {
    let mut s = services();
    let key = other("a");
    let cases = [
        (0x100 | NV_BS, EfiStatus::INVALID_PARAMETER),
        (NON_VOLATILE | RUNTIME_ACCESS, EfiStatus::INVALID_PARAMETER),
        (SIGNED | 0x80, EfiStatus::INVALID_PARAMETER),
        (NV_BS | 0x08, EfiStatus::UNSUPPORTED),
        (NV_BS | 0x10, EfiStatus::UNSUPPORTED),
        (NV_BS | 0x80, EfiStatus::UNSUPPORTED),
        (BOOTSERVICE_ACCESS, EfiStatus::UNSUPPORTED),
        (SIGNED, EfiStatus::SECURITY_VIOLATION),
        (0, EfiStatus::NOT_FOUND),
    ];
    for (attributes, status) in cases {
        assert_eq!(
            s.set(&key, attributes, b"x"),
            Err(status),
            "{attributes:#x}"
        );
    }
    let empty = VariableKey {
        vendor: VENDOR,
        name: Name::new("").unwrap(),
    };
    assert_eq!(
        s.set(&empty, NV_BS, b"x"),
        Err(EfiStatus::INVALID_PARAMETER)
    );
    assert_eq!(s.set(&key, NV_BS, b"x"), Ok(()));
    let mismatch = Err(EfiStatus::INVALID_PARAMETER);
    assert_eq!(s.set(&key, NV_BS_RT, b"x"), mismatch);
    assert_eq!(s.set(&key, NV_BS_RT, b""), mismatch);
}

#[test]
fn at_runtime_only_runtime_variables_exist() {
    let mut s = services();
    s.set(&other("boot"), NV_BS, b"1").unwrap();
    s.set(&other("run"), NV_BS_RT, b"2").unwrap();
    s.exit_boot_services();
    s.exit_boot_services();
    assert_eq!(s.get(&other("boot")), Err(EfiStatus::NOT_FOUND));
    assert_eq!(s.get(&other("run")).unwrap().data, b"2");
    let set = |s: &mut VariableServices, name, attributes| s.set(&other(name), attributes, b"3");
    assert_eq!(set(&mut s, "new", NV_BS), Err(EfiStatus::INVALID_PARAMETER));
    assert_eq!(set(&mut s, "new", NV_BS_RT), Ok(()));
    assert_eq!(set(&mut s, "boot", 0), Err(EfiStatus::NOT_FOUND));
    assert_eq!(set(&mut s, "new", 0), Ok(()));
    let mut names = Vec::new();
    let mut last = None;
    while let Ok(key) = s.next(last.as_ref()) {
        names.push(key.name.to_string());
        last = Some(key.clone());
    }
    assert_eq!(
        names,
        [
            "run",
            "CurrentPolicy",
            "SecureBoot",
            "SetupMode",
            "SecureBootEnable"
        ]
    );
    assert_eq!(
        s.next(Some(&other("boot"))),
        Err(EfiStatus::INVALID_PARAMETER)
    );
    s.reset();
    assert!(s.get(&other("boot")).is_ok());
}

#[test]
fn read_only_variables_are_protected_and_volatile_ones_are_reset() {
    let mut s = services();
    let indications = key(OS_LOADER, "OsLoaderIndications");
    for name in [
        key(GLOBAL_VARIABLE, "SecureBoot"),
        key(GLOBAL_VARIABLE, "SetupMode"),
        key(GLOBAL_VARIABLE, "dbDefault"),
        key(SECURE_BOOT_ENABLE, "SecureBootEnable"),
        key(OS_LOADER, "OsLoaderIndicationsSupported"),
    ] {
        assert_eq!(
            s.set(&name, NV_BS_RT, b"1"),
            Err(EfiStatus::WRITE_PROTECTED)
        );
        assert_eq!(s.set(&name, 0, b""), Err(EfiStatus::WRITE_PROTECTED));
    }
    assert_eq!(
        s.set(&indications, BOOTSERVICE_ACCESS, &[1, 0, 0, 0]),
        Ok(())
    );
    assert_eq!(s.get(&indications).unwrap().data, [1, 0, 0, 0]);
    s.reset();
    assert_eq!(s.get(&indications).unwrap().data, [0; 4]);
    assert_eq!(setup_mode(&s), 1);
}

#[test]
fn the_store_is_bounded_and_tells_how_much_room_there_is() {
    let mut s = services();
    let info = s.query_info(NV_BS_RT).unwrap();
    assert_eq!((info.maximum, info.maximum_variable), (128 << 10, 32 << 10));
    let too_long = vec![1; MAX_DATA_LEN + 1];
    assert_eq!(
        s.set(&other("a"), NV_BS, &too_long),
        Err(EfiStatus::INVALID_PARAMETER)
    );
    for name in ["a", "b", "c"] {
        s.set(&other(name), NV_BS, &too_long[1..]).unwrap();
    }
    let left = s.query_info(NV_BS).unwrap().remaining as usize;
    assert_eq!(left, MAX_TOTAL_LEN - s.variables().encoded_len());
    // The entry of "d" has 52 bytes beside its data.
    let data = vec![2; left - 52 + 1];
    assert_eq!(
        s.set(&other("d"), NV_BS, &data),
        Err(EfiStatus::OUT_OF_RESOURCES)
    );
    assert_eq!(s.set(&other("d"), NV_BS, &data[1..]), Ok(()));
    assert_eq!(s.query_info(NV_BS).unwrap().remaining, 0);
    let append = s.set(&other("a"), NV_BS | APPEND_WRITE, b"1");
    assert_eq!(append, Err(EfiStatus::OUT_OF_RESOURCES));
    assert_eq!(
        s.query_info(BOOTSERVICE_ACCESS),
        Err(EfiStatus::UNSUPPORTED)
    );
    assert_eq!(s.query_info(0), Err(EfiStatus::INVALID_PARAMETER));
}

/// Storage that remembers what it has, and can be made to fail.
#[derive(Clone, Default)]
struct Fallible(Arc<Mutex<(Vec<Vec<u8>>, bool)>>);

impl NvramStorage for Fallible {
    fn persist(&mut self, file: Vec<u8>) -> Result<(), NvramStorageError> {
        let mut state = self.0.lock();
        if state.1 {
            return Err("the disk is full".into());
        }
        state.0.push(file);
        Ok(())
    }

    fn describe(&self) -> String {
        "test".into()
    }
}

#[test]
fn a_failed_store_leaves_the_old_state_and_each_change_is_one_store() {
    let storage = Fallible::default();
    let boxed = Box::new(storage.clone());
    let mut s = VariableServices::new(boxed, None, &SecureBoot::default()).unwrap();
    // Nothing is stored before the machine starts.
    assert!(storage.0.lock().0.is_empty() && !s.is_synchronized());
    s.synchronize();
    s.synchronize();
    assert_eq!(storage.0.lock().0.len(), 1);
    s.set(&other("a"), NV_BS, b"1").unwrap();
    s.set(&other("a"), NV_BS, b"1").unwrap();
    assert_eq!(storage.0.lock().0.len(), 2);
    storage.0.lock().1 = true;
    let before = s.save();
    for (name, attributes, data) in [("a", NV_BS, &b"2"[..]), ("b", NV_BS, b"1"), ("a", 0, b"")] {
        let set = s.set(&other(name), attributes, data);
        assert_eq!(set, Err(EfiStatus::DEVICE_ERROR));
        assert_eq!(s.save(), before);
    }
    assert_eq!(s.storage_failures(), 3);
    storage.0.lock().1 = false;
    // The storage may have any of them, so what is not changed is stored too.
    s.set(&other("a"), NV_BS, b"1").unwrap();
    let state = storage.0.lock();
    assert_eq!(state.0.last(), Some(&s.variables().encode()));
    assert_eq!(state.0.len(), 3);
}

#[test]
fn variables_are_kept_in_the_vmgs_file_of_the_reference() {
    let device = MemoryDevice::new(512, 4 << 20);
    let store = Vmgs::format(Box::new(device), OpenOptions::default()).unwrap();
    let (client, _thread) = Broker::spawn(store).unwrap();
    let open = || {
        let (storage, file) = VmgsNvram::open(client.clone()).unwrap();
        VariableServices::new(Box::new(storage), file.as_deref(), &SecureBoot::default())
    };
    let mut s = open().unwrap();
    s.set(&other("a"), NV_BS_RT, b"kept").unwrap();
    let file = pal_async::block_on(client.read(FileId::BIOS_NVRAM)).unwrap();
    assert_eq!(
        Variables::decode(&file, NameQuirk::Refuse).as_ref(),
        Ok(s.variables())
    );
    let s = open().unwrap();
    assert_eq!(s.get(&other("a")).unwrap().data, b"kept");
    assert!(s.is_synchronized());

    let write = |content: Vec<u8>| {
        pal_async::block_on(client.write(FileId::BIOS_NVRAM, Protection::Plain, content)).unwrap();
    };
    write(vec![1; 60]);
    let error = open().err().unwrap();
    assert!(error.to_string().contains("BIOS_NVRAM"), "{error}");
    write(vec![0; MAX_TOTAL_LEN + 1]);
    let error = VmgsNvram::open(client.clone()).unwrap_err();
    assert!(error.to_string().contains("131073 bytes"), "{error}");
}

#[test]
fn in_setup_mode_keys_are_set_without_a_right_signature() {
    let mut s = services();
    let unsigned = authenticated(&year(2020), b"", &KEK.list());
    let kek = key(GLOBAL_VARIABLE, "KEK");
    assert_eq!(
        s.set(&kek, NV_BS_RT, &KEK.list()),
        Err(EfiStatus::INVALID_PARAMETER)
    );
    assert_eq!(s.set(&kek, SIGNED, &unsigned), Ok(()));
    assert_eq!(s.get(&kek).unwrap().data, KEK.list());
    assert_eq!(s.get(&kek).unwrap().timestamp, year(2020));
    assert_eq!(setup_mode(&s), 1);
    // Lists that are none, and two platform keys.
    let two = [PK.list(), KEK.list()].concat();
    for data in [&b"no list"[..], &two, &digest_list(&[1])] {
        let data = authenticated(&year(2020), b"", data);
        assert_eq!(
            s.set(&pk(), SIGNED, &data),
            Err(EfiStatus::INVALID_PARAMETER)
        );
    }
    let set = s.set(
        &pk(),
        SIGNED,
        &PK.authenticated(&pk(), SIGNED, &year(2020), &PK.list()),
    );
    assert_eq!((set, setup_mode(&s)), (Ok(()), 0));
    // Now it takes a signature.
    let unsigned = authenticated(&year(2021), b"", &KEK.list());
    assert_eq!(
        s.set(&kek, SIGNED, &unsigned),
        Err(EfiStatus::SECURITY_VIOLATION)
    );
    // A deleted platform key brings setup mode back.
    let delete = |time| PK.authenticated(&pk(), SIGNED, &time, b"");
    assert_eq!(
        s.set(&pk(), SIGNED, &delete(year(2019))),
        Err(EfiStatus::SECURITY_VIOLATION)
    );
    assert_eq!(s.set(&pk(), 0, b""), Err(EfiStatus::INVALID_PARAMETER));
    assert_eq!(s.set(&pk(), SIGNED, &delete(year(2021))), Ok(()));
    assert_eq!(setup_mode(&s), 1);
    assert_eq!(s.set(&kek, SIGNED, &unsigned), Ok(()));
}

#[test]
fn the_right_keys_decide_about_each_variable() {
    let kek = key(GLOBAL_VARIABLE, "KEK");
    let denied = Err(EfiStatus::SECURITY_VIOLATION);
    // Which of the signers may set which variable.
    for (key, data, allowed) in [
        (pk(), KEK.list(), [true, false, false, false]),
        (kek, STRANGER.list(), [true, false, false, false]),
        (db(), KEK.list(), [true, true, true, false]),
        (dbx(), digest_list(&[3]), [true, true, true, false]),
    ] {
        for (signer, allowed) in [PK, KEK, LEAF, STRANGER].iter().zip(allowed) {
            let mut s = with_keys();
            let call = signer.authenticated(&key, SIGNED, &year(2024), &data);
            let expected = if allowed { Ok(()) } else { denied };
            assert_eq!(s.set(&key, SIGNED, &call), expected, "{}", key.name);
            if allowed {
                assert_eq!(s.get(&key).unwrap().data, data);
            }
        }
    }
}

#[test]
fn a_private_variable_belongs_to_the_key_that_created_it() {
    let mut s = with_keys();
    let (a, b) = (other("a"), other("b"));
    let count = s.variables().len();
    let set = |s: &mut VariableServices, key: &VariableKey, signer: &TestKey, time, data: &[u8]| {
        let call = signer.authenticated(key, SIGNED, &year(time), data);
        s.set(key, SIGNED, &call)
    };
    let denied = Err(EfiStatus::SECURITY_VIOLATION);
    let unsigned = authenticated(&year(2024), b"", b"1");
    assert_eq!(s.set(&a, SIGNED, &unsigned), denied);
    assert_eq!(set(&mut s, &a, &STRANGER, 2024, b"1"), Ok(()));
    assert_eq!(set(&mut s, &b, &LEAF, 2024, b"1"), Ok(()));
    // Not even the platform key may change it.
    assert_eq!(set(&mut s, &a, &PK, 2025, b"2"), denied);
    assert_eq!(set(&mut s, &a, &LEAF, 2025, b"2"), denied);
    assert_eq!(set(&mut s, &a, &STRANGER, 2025, b"2"), Ok(()));
    assert_eq!(set(&mut s, &a, &STRANGER, 2025, b"3"), denied);
    assert_eq!(s.set(&a, 0, b""), Err(EfiStatus::INVALID_PARAMETER));
    assert_eq!(s.get(&a).unwrap().data, b"2");
    // The list of owners is hidden, and survives.
    let state = s.save();
    s = services();
    s.restore(&state).unwrap();
    assert_eq!(s.variables().len(), count + 3);
    let (mut last, mut seen) = (None, 0);
    while let Ok(key) = s.next(last.as_ref()) {
        last = Some(key.clone());
        seen += 1;
    }
    assert_eq!(seen, count + 2);
    let hidden = s.variables().iter().map(|(key, _)| key.clone());
    let hidden = hidden.into_iter().find(owners::is_hidden).unwrap();
    assert_eq!(s.get(&hidden), Err(EfiStatus::NOT_FOUND));
    assert_eq!(s.set(&hidden, NV_BS, b"1"), Err(EfiStatus::WRITE_PROTECTED));
    assert_eq!(set(&mut s, &a, &LEAF, 2026, b"3"), denied);
    // A deleted one can have another owner.
    assert_eq!(set(&mut s, &a, &STRANGER, 2026, b""), Ok(()));
    assert_eq!(set(&mut s, &a, &LEAF, 2020, b"4"), Ok(()));
    assert_eq!(set(&mut s, &a, &LEAF, 2021, b""), Ok(()));
    assert_eq!(set(&mut s, &b, &LEAF, 2025, b""), Ok(()));
    assert_eq!(s.variables().len(), count);
}

#[test]
fn a_signature_is_of_one_call() {
    let mut s = with_keys();
    let denied = Err(EfiStatus::SECURITY_VIOLATION);
    let data = digest_list(&[3]);
    let call = KEK.authenticated(&dbx(), SIGNED, &year(2024), &data);
    // Of another variable, with other attributes, with other data.
    assert_eq!(s.set(&db(), SIGNED, &call), denied);
    assert_eq!(s.set(&dbx(), SIGNED | APPEND_WRITE, &call), denied);
    let mut changed = call.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(s.set(&dbx(), SIGNED, &changed), denied);
    // At another time.
    changed = call.clone();
    changed[0] += 1;
    assert_eq!(s.set(&dbx(), SIGNED, &changed), denied);
    assert_eq!(s.set(&dbx(), SIGNED, &call), Ok(()));
    // Once.
    assert_eq!(s.set(&dbx(), SIGNED, &call), denied);
}

#[test]
fn headers_with_defects_are_security_violations() {
    let mut s = with_keys();
    let call = KEK.authenticated(&dbx(), SIGNED, &year(2024), &digest_list(&[3]));
    assert_eq!(
        s.set(&dbx(), SIGNED, b""),
        Err(EfiStatus::INVALID_PARAMETER)
    );
    // Padding, nanoseconds, zone, daylight, lengths, revision, type, GUID.
    for at in [7, 8, 12, 14, 15, 19, 20, 22, 24, 39] {
        let mut changed = call.clone();
        changed[at] ^= 0x80;
        assert_eq!(
            s.set(&dbx(), SIGNED, &changed),
            Err(EfiStatus::SECURITY_VIOLATION),
            "{at}"
        );
    }
    for len in 0..40 {
        let mut changed = call.clone();
        changed[16..20].copy_from_slice(&(len as u32).to_le_bytes());
        let set = s.set(&dbx(), SIGNED, &changed);
        assert!(set.is_err(), "{len}");
        assert!(s.set(&dbx(), SIGNED, &call[..len.max(1)]).is_err(), "{len}");
    }
}

#[test]
fn appending_adds_what_is_new_and_keeps_the_later_time() {
    let mut s = with_keys();
    let append = SIGNED | APPEND_WRITE;
    let mut add = |time: u16, digests: &[u8]| {
        let call = KEK.authenticated(&dbx(), append, &year(time), &digest_list(digests));
        s.set(&dbx(), append, &call).unwrap();
        let variable = s.get(&dbx()).unwrap();
        let lists = signature_lists(&variable.data).unwrap();
        let digests = lists.iter().flat_map(|list| &list.signatures);
        let bytes: Vec<_> = digests.map(|signature| signature.data[0]).collect();
        (variable.timestamp.year.get(), bytes)
    };
    // The injected one has another owner, so it is another signature.
    assert_eq!(add(2024, &[2, 3]), (2024, vec![1, 2, 3]));
    // An older one is appended too.
    assert_eq!(add(2022, &[3, 4, 2]), (2024, vec![1, 2, 3, 4]));
    assert_eq!(add(2025, &[4]), (2025, vec![1, 2, 3, 4]));
}

#[test]
fn a_state_is_restored_as_it_was() {
    let mut s = with_keys();
    s.set(&other("a"), NV_BS, b"1").unwrap();
    s.exit_boot_services();
    let state = s.save();
    let storage = Fallible::default();
    let boxed = Box::new(storage.clone());
    let mut restored = VariableServices::new(boxed, None, &SecureBoot::default()).unwrap();
    restored.restore(&state).unwrap();
    assert_eq!(
        (restored.save(), restored.phase()),
        (state.clone(), Phase::Runtime)
    );
    assert!(storage.0.lock().0.is_empty());
    restored.synchronize();
    assert_eq!(storage.0.lock().0, [s.variables().encode()]);
    let bad = NvramState {
        phase: Phase::Boot,
        variables: vec![1],
    };
    restored.restore(&bad).unwrap_err();
    assert_eq!(restored.save(), state);
}

#[test]
fn keys_are_injected_into_an_empty_store_only() {
    let s = with_keys();
    assert_eq!(setup_mode(&s), 0);
    let data = |vendor, name| s.get(&key(vendor, name)).map(|v| v.data.clone());
    assert_eq!(
        data(IMAGE_SECURITY_DATABASE, "db"),
        data(GLOBAL_VARIABLE, "dbDefault")
    );
    assert_eq!(data(GLOBAL_VARIABLE, "SecureBoot"), Ok(vec![1]));
    assert_eq!(s.get(&db()).unwrap().attributes, 0x27);
    assert_eq!(
        s.get(&key(GLOBAL_VARIABLE, "dbDefault"))
            .unwrap()
            .attributes,
        6
    );
    let file = services().variables().encode();
    let enabled = SecureBoot {
        is_enabled: true,
        keys: SecureBootKeys {
            pk: Some(Signature::X509(PK.certificate.to_vec())),
            ..SecureBootKeys::default()
        },
    };
    let s = VariableServices::new(Box::new(MemoryNvram), Some(&file), &enabled).unwrap();
    assert_eq!(s.get(&pk()), Err(EfiStatus::NOT_FOUND));
    assert_eq!(
        s.get(&key(GLOBAL_VARIABLE, "SecureBoot")).unwrap().data,
        [1]
    );
    assert_eq!(setup_mode(&s), 1);
}

/// The rules for variables without authentication, written down again.
#[derive(Default)]
struct Model {
    variables: BTreeMap<u8, (u32, Vec<u8>)>,
    at_runtime: bool,
}

impl Model {
    fn sees(&self, attributes: u32) -> bool {
        !self.at_runtime || attributes & RUNTIME_ACCESS != 0
    }

    fn set(&mut self, name: u8, attributes: u32, data: &[u8]) -> EfiStatus {
        let (append, attributes) = (attributes & 0x40 != 0, attributes & !0x40);
        if ![0, 1, 2, 3, 6, 7].contains(&attributes) {
            return EfiStatus::INVALID_PARAMETER;
        }
        if self.at_runtime && ![0, 1, 7].contains(&attributes) {
            return EfiStatus::INVALID_PARAMETER;
        }
        let deletes = attributes & 6 == 0 || (!append && data.is_empty());
        let old = self.variables.get(&name).cloned();
        if let Some((old, _)) = &old
            && *old != attributes
            && !(deletes && attributes & 6 == 0)
        {
            return EfiStatus::INVALID_PARAMETER;
        }
        if !deletes && attributes & 1 == 0 {
            return EfiStatus::UNSUPPORTED;
        }
        if let Some((old, _)) = &old
            && !self.sees(*old)
        {
            return EfiStatus::NOT_FOUND;
        }
        if deletes {
            return match self.variables.remove(&name) {
                Some(_) => EfiStatus::SUCCESS,
                None => EfiStatus::NOT_FOUND,
            };
        }
        if append && data.is_empty() {
            return EfiStatus::SUCCESS;
        }
        let mut value = old.filter(|_| append).map_or(Vec::new(), |(_, data)| data);
        value.extend(data);
        self.variables.insert(name, (attributes, value));
        EfiStatus::SUCCESS
    }
}

#[derive(Debug, Clone)]
enum Call {
    Set(u8, u32, Vec<u8>),
    Exit,
    Reset,
    SaveAndRestore,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let data = proptest::collection::vec(any::<u8>(), 0..4);
    let attributes = prop_oneof![4 => Just(NV_BS_RT), 2 => Just(NV_BS), 2 => 0..8_u32];
    let attributes = (attributes, any::<bool>());
    let set = (0..4_u8, attributes, data).prop_map(|(name, (attributes, append), data)| {
        Call::Set(
            name,
            attributes | if append { APPEND_WRITE } else { 0 },
            data,
        )
    });
    let call = prop_oneof![
        10 => set,
        1 => Just(Call::Exit),
        1 => Just(Call::Reset),
        1 => Just(Call::SaveAndRestore),
    ];
    proptest::collection::vec(call, 0..40)
}

proptest! {
    #[test]
    fn services_follow_the_model(calls in calls()) {
        let (mut s, mut model) = (services(), Model::default());
        let key = |name: u8| other(&format!("v{name}"));
        for call in calls {
            match call {
                Call::Set(name, attributes, data) => {
                    let status = s.set(&key(name), attributes, &data);
                    let status = status.err().unwrap_or(EfiStatus::SUCCESS);
                    prop_assert_eq!(status, model.set(name, attributes, &data));
                }
                Call::Exit => {
                    s.exit_boot_services();
                    model.at_runtime = true;
                }
                Call::Reset => {
                    s.reset();
                    model.at_runtime = false;
                }
                Call::SaveAndRestore => {
                    let state = s.save();
                    s = services();
                    s.restore(&state).unwrap();
                }
            }
            for name in 0..4 {
                let found = s.get(&key(name)).ok().map(|v| (v.attributes, v.data.clone()));
                let known = model.variables.get(&name).filter(|v| model.sees(v.0)).cloned();
                prop_assert_eq!(found, known);
            }
        }
    }
}
