use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// The commands of the register [`CRYPTO_COMMAND`](super::Register::CRYPTO_COMMAND). Current firmware uses only
/// [`CryptoCommand::RANDOM`].
#[allow(missing_docs, reason = "the names say what they do")]
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct CryptoCommand(pub u32);

#[allow(missing_docs, reason = "the names say what they do")]
impl CryptoCommand {
    pub const HASH: Self = Self(0);
    pub const VERIFY_RSA_PKCS1: Self = Self(1);
    pub const VERIFY_PKCS7: Self = Self(2);
    pub const VERIFY_AUTHENTICODE: Self = Self(3);
    pub const LOG_EVENT: Self = Self(4);
    pub const RANDOM: Self = Self(5);
}

/// A request for random bytes. All requests start with `command` and `status`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RandomRequest {
    /// [`CryptoCommand::RANDOM`].
    pub command: U32,
    /// Out: [`EfiStatus`](crate::EfiStatus).
    pub status: U64,
    /// The address of the buffer.
    pub buffer: U64,
    /// Bytes of the buffer, at most [`RandomRequest::MAX_LEN`].
    pub len: U32,
}

impl RandomRequest {
    /// The most bytes in one request.
    pub const MAX_LEN: usize = 8;
}
