use super::*;
use crate::test_keys::KEK;
use crate::test_keys::LEAF;
use crate::test_keys::PK;
use crate::test_keys::STRANGER;
use proptest::prelude::*;

const CONTENT: &[u8] = b"the content that is signed";
const KEK_SIGNED: &[u8] = include_bytes!("../../testdata/kek.p7");
const WITH_ATTRIBUTES: &[u8] = include_bytes!("../../testdata/kek-attributes.p7");
const CHAIN: &[u8] = include_bytes!("../../testdata/leaf-chain.p7");

/// Checks a signature of [`CONTENT`].
fn check(signature: &[u8], trusted: &[&[u8]]) -> Result<(), Pkcs7Error> {
    verify_detached(signature, &[CONTENT])?.require_trust(trusted)
}

#[test]
fn signatures_by_openssl_are_accepted() {
    for signature in [KEK_SIGNED, WITH_ATTRIBUTES] {
        check(signature, &[PK.certificate, KEK.certificate]).unwrap();
        // Without the ContentInfo: it has 4 bytes, an identifier of 11 and a tag of 4.
        check(&signature[19..], &[KEK.certificate]).unwrap();
        let signer = verify_detached(signature, &[&CONTENT[..3], &CONTENT[3..]]).unwrap();
        assert_eq!(signer.certificate(), KEK.certificate);
    }
    check(&KEK.sign(CONTENT), &[KEK.certificate]).unwrap();
}

#[test]
fn a_signer_is_trusted_if_its_issuer_is() {
    check(CHAIN, &[KEK.certificate]).unwrap();
    check(CHAIN, &[LEAF.certificate]).unwrap();
    // The issuer's certificate need not be in the signature.
    check(&LEAF.sign(CONTENT), &[KEK.certificate]).unwrap();
}

#[test]
fn strangers_are_not_trusted() {
    for (signature, trusted) in [
        (KEK_SIGNED, &[][..]),
        (KEK_SIGNED, &[PK.certificate][..]),
        (CHAIN, &[STRANGER.certificate, b"no certificate"][..]),
        // The issuer does not trust what its subjects trust.
        (KEK_SIGNED, &[LEAF.certificate][..]),
    ] {
        let error = check(signature, trusted).unwrap_err();
        assert!(matches!(error, Pkcs7Error::NotTrusted { .. }), "{error}");
    }
}

#[test]
fn other_content_is_not_signed() {
    for signature in [KEK_SIGNED, WITH_ATTRIBUTES, CHAIN] {
        let error = verify_detached(signature, &[b"other content"])
            .err()
            .unwrap();
        assert!(matches!(error, Pkcs7Error::NotSigned(_)), "{error}");
    }
}

#[test]
fn other_shapes_are_refused() {
    let attached = include_bytes!("../../testdata/kek-attached.p7");
    let two_signers = include_bytes!("../../testdata/two-signers.p7");
    let sha1 = include_bytes!("../../testdata/kek-sha1.p7");
    for (signature, words) in [
        (&attached[..], "content in it"),
        (two_signers, "more than one signer"),
        (sha1, "another digest"),
    ] {
        let error = check(signature, &[KEK.certificate, PK.certificate]).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    for signature in [&b""[..], &[0x30, 0], &[0x30, 0x80, 0, 0], &[6, 1, 42]] {
        let error = check(signature, &[]).unwrap_err();
        assert!(matches!(error, Pkcs7Error::Malformed(_)), "{error}");
    }
}

#[test]
fn every_changed_byte_is_noticed_or_means_nothing() {
    // The signer's name and the like mean nothing, as each certificate's key is tried.
    let certificate = KEK_SIGNED
        .windows(KEK.certificate.len())
        .position(|window| window == KEK.certificate)
        .unwrap();
    let certificate = certificate..certificate + KEK.certificate.len();
    let signature = KEK_SIGNED.len() - 256..KEK_SIGNED.len();
    for at in 0..KEK_SIGNED.len() {
        let mut bytes = KEK_SIGNED.to_vec();
        bytes[at] ^= 0x40;
        let is_accepted = check(&bytes, &[KEK.certificate]).is_ok();
        let means_something = certificate.contains(&at) || signature.contains(&at);
        assert!(!is_accepted || !means_something, "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_signatures_are_refused_or_verified(
        which in 0..3_usize,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<usize>()),
    ) {
        let mut bytes = [KEK_SIGNED, WITH_ATTRIBUTES, CHAIN][which].to_vec();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        let _ = check(&bytes, &[KEK.certificate, &bytes]);
    }
}
