//! Keys, and AES-256-GCM on messages that are processed piece by piece.
//!
//! The AEAD crates need the whole message in memory. Files can be as large as firmware images, and the
//! store also authenticates without decrypting and decrypts from any position. So GCM (NIST SP 800-38D)
//! is composed here of its parts: counter mode from `ctr` and the universal hash from `ghash`. The
//! format has no associated data.

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
use std::io;
use vmgs_format::KEY_LEN;
use vmgs_format::NONCE_LEN;
use vmgs_format::TAG_LEN;
use zeroize::Zeroize;
use zeroize::ZeroizeOnDrop;
use zeroize::Zeroizing;

/// Maximum length in bytes of a message: the block counter has 32 bits and starts at 2.
pub(crate) const MAX_ENCRYPTED_LEN: u64 = ((1 << 32) - 2) * 16;

/// An AES-256 key: a datastore key, which the user holds, or a key that the store generated.
///
/// It is wiped when dropped, and `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Key(#[cbor(with = "minicbor::bytes")] [u8; KEY_LEN]);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The key with these bytes; none if they are not exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads a key: exactly 32 bytes.
    pub fn read_from(source: &mut dyn io::Read) -> io::Result<Self> {
        // One more byte than a key has, to notice what is longer.
        let mut bytes = Zeroizing::new([0; KEY_LEN + 1]);
        let mut len = 0;
        while len < bytes.len() {
            match source.read(&mut bytes[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Self::from_slice(&bytes[..len])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a key has exactly 32 bytes"))
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// A new random key.
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

/// A nonce for a key that encrypts one message: four random bytes and a zero counter.
pub(crate) fn fresh_nonce() -> Result<[u8; NONCE_LEN], Error> {
    let mut nonce = [0; NONCE_LEN];
    random(&mut nonce[..4])?;
    Ok(nonce)
}

/// The nonce for the next message under the same key: four new random bytes, and the counter of
/// `previous` plus one.
pub(crate) fn next_nonce(previous: &[u8; NONCE_LEN]) -> Result<[u8; NONCE_LEN], Error> {
    let mut nonce = fresh_nonce()?;
    let mut counter = [0; 8];
    counter.copy_from_slice(&previous[4..]);
    let counter = u64::from_le_bytes(counter).wrapping_add(1);
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Ok(nonce)
}

/// A message that is encrypted, decrypted or authenticated piece by piece. The length of each piece, except
/// for the last, is a multiple of 16 bytes.
pub(crate) struct Gcm {
    keystream: ctr::Ctr32BE<Aes256>,
    hash: GHash,
    /// The encrypted first counter block, which is XORed with the hash to get the tag.
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

    /// Authenticates the next piece of ciphertext without decrypting it.
    pub(crate) fn authenticate(&mut self, piece: &[u8]) {
        debug_assert!(
            self.len.is_multiple_of(16),
            "only the last piece may have a partial block"
        );
        self.hash.update_padded(piece);
        self.len += piece.len() as u64;
    }

    /// Decrypts the piece at byte `position` of the message. This is independent of authentication.
    pub(crate) fn decrypt_at(&mut self, position: u64, piece: &mut [u8]) {
        // The first block of the keystream is the mask.
        self.keystream.seek(TAG_LEN as u64 + position);
        self.keystream.apply_keystream(piece);
    }

    /// The hash of the pieces authenticated so far and the length block.
    fn finished_hash(&self) -> GHash {
        let mut lengths = [0; 16];
        lengths[8..].copy_from_slice(&(self.len * 8).to_be_bytes());
        let mut hash = self.hash.clone();
        hash.update(&[lengths.into()]);
        hash
    }

    /// The XOR of a hash or a tag with the mask.
    fn masked(&self, block: [u8; TAG_LEN]) -> [u8; TAG_LEN] {
        std::array::from_fn(|i| block[i] ^ self.mask[i])
    }

    /// The tag of the pieces encrypted or authenticated so far.
    pub(crate) fn tag(&self) -> [u8; TAG_LEN] {
        self.masked(self.finished_hash().finalize().into())
    }

    /// Whether `tag` is the tag of the pieces authenticated so far. Runs in constant time.
    pub(crate) fn verify(&self, tag: &[u8; TAG_LEN]) -> bool {
        let hash = self.masked(*tag);
        self.finished_hash().verify(&hash.into()).is_ok()
    }
}

/// Encrypts `message` in place and returns its tag.
pub(crate) fn seal(key: &Key, nonce: &[u8; NONCE_LEN], message: &mut [u8]) -> [u8; TAG_LEN] {
    let mut gcm = Gcm::new(key, nonce);
    gcm.encrypt(message);
    gcm.tag()
}

/// Decrypts `message` in place. Returns false and leaves it unchanged if `tag` is not its tag.
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
#[path = "crypto_test.rs"]
mod tests;
