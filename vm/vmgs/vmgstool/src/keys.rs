//! Keys and encryption.

use crate::cli;
use crate::exit;
use crate::exit::QuietExit;
use crate::open::Opener;
use crate::open::read_key;
use crate::output;
use anyhow::Context;
use anyhow::bail;
use serde_json::json;
use std::io::Write;
use vmgs::StoreAccess;
use vmgs_format::EncryptionAlgorithm;
use vmgs_format::FileId;

pub(crate) fn update_key(opener: Opener, args: &cli::UpdateKey) -> anyhow::Result<()> {
    let cli::Algorithm::AesGcm = args.encryption_algorithm;
    let old = read_key(&args.key_path)?;
    let new = read_key(&args.new_key_path)?;
    let mut store = opener.open(&args.store.file_path, StoreAccess::ReadWrite)?;
    store.unlock(&old).context("unlocking the store")?;
    store.update_key(&new).context("replacing the key")
}

pub(crate) fn encrypt(opener: Opener, args: &cli::Encrypt) -> anyhow::Result<()> {
    let cli::Algorithm::AesGcm = args.encryption_algorithm;
    let key = read_key(&args.target.key_path)?;
    let mut store = opener.open(&args.target.store.file_path, StoreAccess::ReadWrite)?;
    store.encrypt(&key).context("encrypting the store")
}

pub(crate) fn rekey(opener: Opener, args: &cli::StoreKey) -> anyhow::Result<()> {
    let key = read_key(&args.key_path)?;
    let mut store = opener.open(&args.store.file_path, StoreAccess::ReadWrite)?;
    store.unlock(&key).context("unlocking the store")?;
    let left = store.rekey().context("replacing the keys in the store")?;
    for id in &left {
        tracing::error!(%id, "the file does not decrypt and keeps its key");
    }
    if !left.is_empty() {
        bail!("{} files do not decrypt and keep their keys", left.len());
    }
    Ok(())
}

pub(crate) fn query_encryption(
    opener: Opener,
    args: &cli::Store,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let store = opener.open(&args.file_path, StoreAccess::ReadOnly)?;
    let (code, scheme) = match store.encryption_algorithm() {
        EncryptionAlgorithm::NONE => (exit::NOT_ENCRYPTED, "none"),
        _ if store.is_allocated(FileId::KEY_PROTECTOR) => (0, "GspKey"),
        _ if store.is_allocated(FileId::VM_UNIQUE_ID) => (exit::GSP_BY_ID, "GspById"),
        _ => (exit::GSP_UNKNOWN, "unknown"),
    };
    if json {
        let answer = json!({
            "encrypted": store.is_encrypted(),
            "algorithm": if store.is_encrypted() { Some("AES_GCM") } else { None },
            "keys": store.key_count(),
            "scheme": scheme,
            "exit_code": code,
        });
        output::print_json(out, &answer)?;
    }
    tracing::info!(
        encrypted = store.is_encrypted(),
        scheme,
        "encryption of the store"
    );
    if code == 0 {
        Ok(())
    } else {
        Err(QuietExit(code).into())
    }
}
