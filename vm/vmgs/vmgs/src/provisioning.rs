//! The record of who formatted a store and why.

use crate::error::Error;
use serde::Serialize;

/// Why a store was formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvisioningReason {
    /// The device was never formatted.
    Empty,
    /// The store was damaged.
    Failure,
    /// The caller asked for it.
    Request,
}

/// The program that formatted a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "these are the names of programs")]
pub enum Provisioner {
    Unknown,
    Hcl,
    OpenHcl,
    CpsVmgstoolCvm,
    HaVmgstoolTvm,
    HclPostProvisioning,
}

/// The content of [`FileId::PROVISIONING_MARKER`](crate::FileId::PROVISIONING_MARKER), a compact JSON
/// document with the members in this order. It is for diagnosis; nothing reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProvisioningMarker {
    /// The program that formatted the store.
    pub provisioner: Provisioner,
    /// Why it did.
    pub reason: ProvisioningReason,
    /// Version of the virtual TPM.
    pub tpm_version: String,
    /// Length in bytes of the virtual TPM's state.
    pub tpm_nvram_size: u64,
    /// Length in bytes of the virtual TPM's attestation key certificate.
    pub akcert_size: u64,
    /// Attributes of that certificate, in hexadecimal with the prefix `0x`.
    pub akcert_attrs: String,
    /// Version of the program that formatted the store.
    pub provisioner_version: String,
}

impl ProvisioningMarker {
    /// Encodes the content of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(Error::Json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_compact_and_its_members_are_in_order() {
        let marker = ProvisioningMarker {
            provisioner: Provisioner::OpenHcl,
            reason: ProvisioningReason::Empty,
            tpm_version: "1.38".into(),
            tpm_nvram_size: 32768,
            akcert_size: 4096,
            akcert_attrs: "0x42060004".into(),
            provisioner_version: "abc".into(),
        };
        assert_eq!(
            String::from_utf8(marker.to_bytes().unwrap()).unwrap(),
            "{\"provisioner\":\"openhcl\",\"reason\":\"empty\",\"tpm_version\":\"1.38\",\
             \"tpm_nvram_size\":32768,\"akcert_size\":4096,\"akcert_attrs\":\"0x42060004\",\
             \"provisioner_version\":\"abc\"}"
        );
    }
}
