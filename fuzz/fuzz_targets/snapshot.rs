//! Reads arbitrary bytes as the manifest, the memory index and the state of a snapshot.
#![no_main]

use snapshot::Manifest;
use snapshot::MemoryIndex;
use state_unit::SavedUnits;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(manifest) = Manifest::unseal(input) {
        let sealed = manifest.seal().expect("it was JSON");
        assert_eq!(
            Manifest::unseal(sealed.as_bytes()).expect("sealed"),
            manifest
        );
    }
    // What the digest keeps from the parser.
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(input) {
        let sealed = manifest.seal().expect("it was JSON");
        let _ = Manifest::unseal(sealed.as_bytes());
        let _ = manifest.config_bytes();
    }
    if let Ok(index) = MemoryIndex::decode(input) {
        assert_eq!(index.encode(), input);
    }
    if let Ok(units) = SavedUnits::decode(input) {
        let again = SavedUnits::decode(&units.encode()).expect("encoded");
        assert_eq!(again, units);
    }
});
