//! The record of who formatted a store and why.

use crate::commit::Protection;
use crate::error::Error;
use crate::store::ProvisioningReason;
use crate::store::Vmgs;
use serde::Deserialize;
use serde::Serialize;
use vmgs_format::FileId;

/// Who formats stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Why it was formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedReason {
    /// Nothing was stored.
    Empty,
    /// The store was damaged.
    Failure,
    /// It was asked for.
    Request,
    /// Not known.
    Unknown,
}

impl From<ProvisioningReason> for RecordedReason {
    fn from(reason: ProvisioningReason) -> Self {
        match reason {
            ProvisioningReason::Empty => Self::Empty,
            ProvisioningReason::Failure => Self::Failure,
            ProvisioningReason::Request => Self::Request,
        }
    }
}

/// The content of [`FileId::PROVISIONING_MARKER`], a compact JSON document with the members in this
/// order. For diagnosis: nothing reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisioningMarker {
    /// Who formatted the store.
    pub provisioner: Provisioner,
    /// Why.
    pub reason: RecordedReason,
    /// The version of the virtual TPM.
    pub tpm_version: String,
    /// Bytes of the virtual TPM's state.
    pub tpm_nvram_size: u64,
    /// Bytes of its attestation key certificate.
    pub akcert_size: u64,
    /// The certificate's attributes, in hexadecimal with a prefix.
    pub akcert_attrs: String,
    /// The version of who formatted the store.
    pub provisioner_version: String,
}

impl ProvisioningMarker {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(Error::Json)
    }
}

impl Vmgs {
    /// Stores the marker, unencrypted.
    pub fn write_provisioning_marker(&mut self, marker: &ProvisioningMarker) -> Result<(), Error> {
        self.write(
            FileId::PROVISIONING_MARKER,
            Protection::Plain,
            &marker.to_bytes()?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_compact_and_ordered() {
        let marker = ProvisioningMarker {
            provisioner: Provisioner::OpenHcl,
            reason: ProvisioningReason::Empty.into(),
            tpm_version: "1.38".into(),
            tpm_nvram_size: 32768,
            akcert_size: 4096,
            akcert_attrs: "0x42060004".into(),
            provisioner_version: "abc".into(),
        };
        assert_eq!(
            serde_json::to_string(&marker).unwrap(),
            "{\"provisioner\":\"openhcl\",\"reason\":\"empty\",\"tpm_version\":\"1.38\",\
             \"tpm_nvram_size\":32768,\"akcert_size\":4096,\"akcert_attrs\":\"0x42060004\",\
             \"provisioner_version\":\"abc\"}"
        );
    }
}
