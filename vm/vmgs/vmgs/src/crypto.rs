//! AES-256-GCM in pieces, and the keys it is used with.
//!
//! The one-shot interface of an AEAD crate needs the whole message in memory. Files here are as large
//! as firmware images, so the mode (NIST SP 800-38D) is composed of its parts: the counter mode of
//! `ctr` and the universal hash of `ghash`. There is no associated data anywhere in the format.

use crate::error::Error;
use aes::Aes256;
use aes::cipher::BlockCipherEncrypt;
use aes::cipher::KeyInit;
use aes::cipher::KeyIvInit;
use aes::cipher::StreamCipher;
use aes::cipher::StreamCipherSeek;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use std::fmt;
use vmgs_format::KEY_LEN;
use vmgs_format::NONCE_LEN;
use vmgs_format::TAG_LEN;
use zeroize::Zeroize;
use zeroize::ZeroizeOnDrop;

/// The most bytes that one nonce can encrypt: the block counter has 32 bits, and starts at 2.
pub(crate) const MAX_ENCRYPTED_LEN: u64 = ((1 << 32) - 2) * 16;

/// A key of the store: a datastore key, which the user holds, or one that the store made.
///
/// Wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The key in a file of exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// A new key of random bytes.
    pub fn generate() -> Result<Self, Error> {
        let mut key = Self([0; KEY_LEN]);
        random(&mut key.0)?;
        Ok(key)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().fold(0, |any, b| any | b) == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::Randomness(error.to_string()))
}

/// A nonce for a key that is used once: four random bytes, and a counter at zero.
pub(crate) fn fresh_nonce() -> Result<[u8; NONCE_LEN], Error> {
    let mut nonce = [0; NONCE_LEN];
    random(&mut nonce[..4])?;
    Ok(nonce)
}

/// The nonce for wrapping again under the same key: the counter after `previous`'s, four new random
/// bytes before it.
pub(crate) fn next_nonce(previous: &[u8; NONCE_LEN]) -> Result<[u8; NONCE_LEN], Error> {
    let mut nonce = fresh_nonce()?;
    let mut counter = [0; 8];
    counter.copy_from_slice(&previous[4..]);
    let counter = u64::from_le_bytes(counter).wrapping_add(1);
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Ok(nonce)
}

/// A message being encrypted, decrypted or authenticated, piece by piece. All pieces but the last are
/// multiples of 16 bytes long.
pub(crate) struct Gcm {
    keystream: ctr::Ctr32BE<Aes256>,
    hash: GHash,
    /// What the hash is masked with to become the tag: the first counter block, encrypted.
    mask: [u8; TAG_LEN],
    len: u64,
}

impl Gcm {
    pub(crate) fn new(key: &Key, nonce: &[u8; NONCE_LEN]) -> Self {
        let cipher = Aes256::new(key.as_bytes().into());
        let mut hash_key = [0; 16].into();
        cipher.encrypt_block(&mut hash_key);
        let mut counter = [0; 16];
        counter[..NONCE_LEN].copy_from_slice(nonce);
        counter[15] = 1;
        let mut keystream = ctr::Ctr32BE::<Aes256>::new(key.as_bytes().into(), &counter.into());
        let mut mask = [0; TAG_LEN];
        keystream.apply_keystream(&mut mask);
        let gcm = Self {
            keystream,
            hash: GHash::new(&hash_key),
            mask,
            len: 0,
        };
        hash_key.zeroize();
        gcm
    }

    pub(crate) fn encrypt(&mut self, piece: &mut [u8]) {
        self.keystream.apply_keystream(piece);
        self.authenticate(piece);
    }

    /// Takes in ciphertext without decrypting it.
    pub(crate) fn authenticate(&mut self, piece: &[u8]) {
        debug_assert!(
            self.len.is_multiple_of(16),
            "only the last piece may be ragged"
        );
        self.hash.update_padded(piece);
        self.len += piece.len() as u64;
    }

    /// Decrypts the piece that starts at byte `position` of the message; independent of what was
    /// authenticated.
    pub(crate) fn decrypt_at(&mut self, position: u64, piece: &mut [u8]) {
        // The first block of keystream went into the mask.
        self.keystream.seek(TAG_LEN as u64 + position);
        self.keystream.apply_keystream(piece);
    }

    fn lengths(&self) -> [u8; 16] {
        let mut block = [0; 16];
        block[8..].copy_from_slice(&(self.len * 8).to_be_bytes());
        block
    }

    /// The tag of what was encrypted or authenticated.
    pub(crate) fn tag(&self) -> [u8; TAG_LEN] {
        let mut hash = self.hash.clone();
        hash.update(&[self.lengths().into()]);
        let mut tag: [u8; TAG_LEN] = hash.finalize().into();
        tag.iter_mut().zip(&self.mask).for_each(|(t, m)| *t ^= m);
        tag
    }

    /// Whether `tag` is the tag of what was authenticated; takes the same time whatever differs.
    pub(crate) fn verify(&self, tag: &[u8; TAG_LEN]) -> bool {
        let mut hash = self.hash.clone();
        hash.update(&[self.lengths().into()]);
        let mut expected = *tag;
        expected
            .iter_mut()
            .zip(&self.mask)
            .for_each(|(t, m)| *t ^= m);
        hash.verify(&expected.into()).is_ok()
    }
}

/// Encrypts `message` in place and returns its tag.
pub(crate) fn seal(key: &Key, nonce: &[u8; NONCE_LEN], message: &mut [u8]) -> [u8; TAG_LEN] {
    let mut gcm = Gcm::new(key, nonce);
    gcm.encrypt(message);
    gcm.tag()
}

/// Decrypts `message` in place; leaves it alone and returns false if the tag is not its tag.
#[must_use]
pub(crate) fn open(
    key: &Key,
    nonce: &[u8; NONCE_LEN],
    tag: &[u8; TAG_LEN],
    message: &mut [u8],
) -> bool {
    let mut gcm = Gcm::new(key, nonce);
    gcm.authenticate(message);
    let authentic = gcm.verify(tag);
    if authentic {
        gcm.decrypt_at(0, message);
    }
    authentic
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn wrapping_a_key_gives_the_known_record() {
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
    fn the_record_of_a_faulty_writer_opens_to_a_zero_key() {
        let nonce = hex("c36656bf0100000000000000");
        let mut key: [u8; 32] =
            hex("0cc417db45f73ba72045bd85d5704fee32651c80abb8945eb5fda042d0d9a016");
        let tag = hex("de25a904679de1b2193896ac58555337");
        assert!(open(&Key::new([0x11; 32]), &nonce, &tag, &mut key));
        assert_eq!(key, [0; 32]);
    }

    #[test]
    fn a_zero_table_under_zeros_has_the_known_tag() {
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
    fn nonces_count_up_and_wrap() {
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
        fn agrees_with_another_implementation(
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
}
