use super::*;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;
use proptest::prelude::*;

fn hex<const N: usize>(text: &str) -> [u8; N] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

fn counting(first: u8) -> Key {
    Key::new(std::array::from_fn(|i| first + i as u8))
}

/// Hands out its bytes one by one, and is interrupted before each.
struct Slow<'a> {
    bytes: &'a [u8],
    interrupted: bool,
}

impl io::Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(1);
        self.bytes.read(&mut buffer[..len])
    }
}

#[test]
fn a_key_is_read_from_exactly_32_bytes() {
    let bytes: [u8; 40] = std::array::from_fn(|i| i as u8);
    let read = |len| {
        Key::read_from(&mut Slow {
            bytes: &bytes[..len],
            interrupted: false,
        })
    };
    assert_eq!(read(KEY_LEN).unwrap().as_bytes()[..], bytes[..KEY_LEN]);
    for len in [0, KEY_LEN - 1, KEY_LEN + 1, 40] {
        assert_eq!(read(len).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let error = Key::read_from(&mut Broken).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_key_is_not_shown() {
    assert_eq!(format!("{:?}", counting(1)), "Key(..)");
}

#[test]
fn a_wrapped_key_has_the_known_ciphertext() {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&[0xa1, 0xb2, 0xc3, 0xd4]);
    let mut wrapped = *counting(0x80).as_bytes();
    let tag = seal(&counting(0), &nonce, &mut wrapped);
    let expected: [u8; 32] =
        hex("0282b76b181b4583830259255196c685930313055c84630fb782fe19c593ad47");
    assert_eq!(wrapped, expected);
    assert_eq!(tag, hex::<16>("a89e693833dc174c2b4f41feb7737aef"));
}

#[test]
fn the_record_of_a_faulty_writer_decrypts_to_a_zero_key() {
    let nonce = hex("c36656bf0100000000000000");
    let mut key: [u8; 32] = hex("0cc417db45f73ba72045bd85d5704fee32651c80abb8945eb5fda042d0d9a016");
    let tag = hex("de25a904679de1b2193896ac58555337");
    assert!(open(&Key::new([0x11; 32]), &nonce, &tag, &mut key));
    assert_eq!(key, [0; 32]);
}

#[test]
fn a_zero_table_under_a_zero_key_has_the_known_tag() {
    let mut table = [0; 4096];
    let tag = seal(&Key::new([0; 32]), &[0; 12], &mut table);
    assert_eq!(tag, hex::<16>("02f2e46a9e9e45511dcd94ac24f1f9b6"));
}

#[test]
fn file_data_has_the_known_ciphertext() {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&[1, 2, 3, 4]);
    let mut data = *b"hello world";
    let tag = seal(&counting(0x40), &nonce, &mut data);
    assert_eq!(data, hex::<11>("34a56da783fbc781e1a28b"));
    assert_eq!(tag, hex::<16>("9c29599f1482c053047e2d51fad37413"));
}

#[test]
fn nonce_counters_increment_and_wrap() {
    let mut nonce = [0xff; 12];
    nonce = next_nonce(&nonce).unwrap();
    assert_eq!(nonce[4..], [0; 8]);
    nonce = next_nonce(&nonce).unwrap();
    assert_eq!(nonce[4..], [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn keys_are_not_printed() {
    assert_eq!(format!("{:?}", counting(1)), "Key(..)");
}

proptest! {
    #[test]
    fn result_is_that_of_the_aes_gcm_crate(
        key: [u8; 32],
        nonce: [u8; 12],
        data in proptest::collection::vec(any::<u8>(), 0..300),
        pieces in 1usize..5,
        flip in any::<proptest::sample::Index>(),
    ) {
        let mut theirs = data.clone();
        let cipher = KeyInit::new(&key.into());
        let tag = Aes256Gcm::encrypt_inout_detached(
            &cipher, &nonce.into(), b"", theirs.as_mut_slice().into(),
        ).unwrap();
        let mut ours = data.clone();
        let mut gcm = Gcm::new(&Key::new(key), &nonce);
        for piece in ours.chunks_mut(16 * pieces) {
            gcm.encrypt(piece);
        }
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(gcm.tag(), <[u8; 16]>::from(tag));

        let mut bad = ours.clone();
        if !bad.is_empty() {
            let at = flip.index(bad.len());
            bad[at] ^= 1;
            prop_assert!(!open(&Key::new(key), &nonce, &tag.into(), &mut bad));
        }
        prop_assert!(open(&Key::new(key), &nonce, &tag.into(), &mut ours));
        prop_assert_eq!(ours, data);
    }
}
