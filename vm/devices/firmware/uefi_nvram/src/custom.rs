//! Keys and variables in the JSON format that Azure has for the UEFI settings of a disk.

use crate::secure_boot::InjectedVariable;
use crate::secure_boot::SecureBootKeys;
use crate::secure_boot::Signature;
use data_encoding::BASE64;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The type that the JSON says it has.
const DISK_TYPE: &str = "Microsoft.Compute/disks";

/// The longest JSON, in bytes: no variables of more than 128 KiB can be stored.
const MAX_JSON_LEN: usize = 1 << 20;

/// The bits of attributes that are defined.
const KNOWN_ATTRIBUTES: u32 = 0xff;

/// Keys and variables that a new VM has beside those of a template, or in their place.
///
/// ```json
/// {
///   "type": "Microsoft.Compute/disks",
///   "properties": { "uefiSettings": {
///     "signatureMode": "Replace",
///     "signatures": {
///       "PK": { "type": "x509", "value": ["MII…"] },
///       "KEK": [{ "type": "x509", "value": ["MII…"] }],
///       "db": [{ "type": "Default" }]
///     },
///     "Example": { "guid": "Yd/ki8qT0hGqDQDgmAMrjA==", "attributes": "Bw==", "value": "AQ==" }
///   } }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomVariables {
    mode: Mode,
    pk: Option<Slot>,
    kek: Option<Slot>,
    db: Option<Slot>,
    dbx: Option<Slot>,
    mok_list: Option<Slot>,
    mok_list_x: Option<Slot>,
    variables: Vec<InjectedVariable>,
}

/// What a variable of keys is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    /// What the template has.
    Default,
    Signatures(Vec<Signature>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Mode {
    Append,
    Replace,
}

/// Why custom variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CustomVariablesError {
    /// The JSON is too long.
    #[error("it has {0} bytes; at most {MAX_JSON_LEN} can be used")]
    TooLong(usize),
    /// It is not JSON, or not of this shape.
    #[error("it is not JSON of UEFI settings")]
    Json(#[from] serde_json::Error),
    /// It is for something else.
    #[error("its type is `{0}` instead of `{DISK_TYPE}`")]
    Type(String),
    /// A value cannot be used.
    #[error("`{name}`: {reason}")]
    Value {
        /// The variable.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no template, and one is needed.
    #[error("{0} needs a template of Secure Boot")]
    NoTemplate(&'static str),
}

fn wrong(name: &str, reason: &'static str) -> CustomVariablesError {
    CustomVariablesError::Value {
        name: name.into(),
        reason,
    }
}

#[derive(Deserialize)]
struct Document {
    r#type: String,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    uefi_settings: Settings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    signature_mode: Mode,
    signatures: Signatures,
    #[serde(flatten)]
    variables: BTreeMap<String, VariableJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    #[serde(rename = "PK")]
    pk: Option<SignatureJson>,
    #[serde(rename = "KEK")]
    kek: Option<Vec<SignatureJson>>,
    db: Option<Vec<SignatureJson>>,
    dbx: Option<Vec<SignatureJson>>,
    #[serde(rename = "MokList")]
    mok_list: Option<Vec<SignatureJson>>,
    #[serde(rename = "MokListX")]
    mok_list_x: Option<Vec<SignatureJson>>,
}

#[derive(Deserialize)]
struct SignatureJson {
    r#type: SignatureType,
    #[serde(default)]
    value: Vec<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
enum SignatureType {
    #[serde(rename = "x509")]
    X509,
    #[serde(rename = "sha256")]
    Sha256,
    Default,
}

#[derive(Deserialize)]
struct VariableJson {
    guid: String,
    attributes: String,
    value: String,
}

impl CustomVariables {
    /// Parses JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, CustomVariablesError> {
        if json.len() > MAX_JSON_LEN {
            return Err(CustomVariablesError::TooLong(json.len()));
        }
        let document: Document = serde_json::from_slice(json)?;
        if document.r#type != DISK_TYPE {
            return Err(CustomVariablesError::Type(document.r#type));
        }
        let settings = document.properties.uefi_settings;
        let mode = settings.signature_mode;
        let signatures = settings.signatures;
        let slot = |name, slot: Option<Vec<SignatureJson>>| {
            let slot = slot.map(|slot| Slot::parse(name, slot)).transpose()?;
            if mode == Mode::Append && slot == Some(Slot::Default) {
                return Err(wrong(name, "`Default` is for the mode `Replace`"));
            }
            Ok(slot)
        };
        let variables = settings.variables.into_iter();
        let this = Self {
            mode,
            pk: slot("PK", signatures.pk.map(|pk| vec![pk]))?,
            kek: slot("KEK", signatures.kek)?,
            db: slot("db", signatures.db)?,
            dbx: slot("dbx", signatures.dbx)?,
            mok_list: slot("MokList", signatures.mok_list)?,
            mok_list_x: slot("MokListX", signatures.mok_list_x)?,
            variables: variables
                .map(|(name, json)| json.parse(name))
                .collect::<Result<_, _>>()?,
        };
        if let Some(Slot::Signatures(keys)) = &this.pk
            && !matches!(keys[..], [Signature::X509(_)])
        {
            return Err(wrong("PK", "the platform key is one certificate"));
        }
        match mode {
            Mode::Append if this.pk.is_some() => Err(wrong(
                "PK",
                "there is one platform key, so nothing can be appended",
            )),
            Mode::Replace if this.pk.is_none() => Err(wrong("PK", "the mode `Replace` needs it")),
            Mode::Replace if this.kek.is_none() => Err(wrong("KEK", "the mode `Replace` needs it")),
            Mode::Replace if this.db.is_none() => Err(wrong("db", "the mode `Replace` needs it")),
            _ => Ok(this),
        }
    }

    /// The keys of `template` with these.
    pub fn apply(
        self,
        template: Option<SecureBootKeys>,
    ) -> Result<SecureBootKeys, CustomVariablesError> {
        if self.mode == Mode::Append && template.is_none() {
            return Err(CustomVariablesError::NoTemplate("the mode `Append`"));
        }
        let has_template = template.is_some();
        let mut keys = template.unwrap_or_default();
        let merge = |signatures: &mut Vec<Signature>, slot: Option<Slot>| {
            match (self.mode, slot) {
                (_, Some(Slot::Default)) if !has_template => {
                    return Err(CustomVariablesError::NoTemplate("a key of type `Default`"));
                }
                (Mode::Append, None) | (_, Some(Slot::Default)) => {}
                (Mode::Append, Some(Slot::Signatures(new))) => signatures.extend(new),
                (Mode::Replace, None) => signatures.clear(),
                (Mode::Replace, Some(Slot::Signatures(new))) => *signatures = new,
            }
            Ok(())
        };
        let mut pk = Vec::from_iter(keys.pk.take());
        merge(&mut pk, self.pk)?;
        keys.pk = pk.pop();
        merge(&mut keys.kek, self.kek)?;
        merge(&mut keys.db, self.db)?;
        merge(&mut keys.dbx, self.dbx)?;
        merge(&mut keys.mok_list, self.mok_list)?;
        merge(&mut keys.mok_list_x, self.mok_list_x)?;
        keys.variables.extend(self.variables);
        Ok(keys)
    }
}

impl Slot {
    fn parse(name: &str, slot: Vec<SignatureJson>) -> Result<Self, CustomVariablesError> {
        if slot.iter().any(|s| s.r#type == SignatureType::Default) {
            return match &slot[..] {
                [only] if only.value.is_empty() => Ok(Self::Default),
                _ => Err(wrong(name, "`Default` stands alone, without a value")),
            };
        }
        let mut signatures = Vec::new();
        for SignatureJson { r#type, value } in slot {
            for text in value {
                let bytes = decode(name, &text)?;
                signatures.push(match r#type {
                    SignatureType::Sha256 => Signature::Sha256(
                        bytes
                            .try_into()
                            .map_err(|_| wrong(name, "a SHA-256 digest has 32 bytes"))?,
                    ),
                    _ => Signature::X509(bytes),
                });
            }
        }
        if signatures.is_empty() {
            return Err(wrong(name, "there is no signature in it"));
        }
        Ok(Self::Signatures(signatures))
    }
}

impl VariableJson {
    fn parse(self, name: String) -> Result<InjectedVariable, CustomVariablesError> {
        if name == "dbDefault" {
            return Err(wrong(&name, "it is always a copy of `db`"));
        }
        if name.is_empty() || name.contains('\0') {
            return Err(wrong(&name, "a variable cannot have this name"));
        }
        let vendor = decode(&name, &self.guid)?
            .try_into()
            .map_err(|_| wrong(&name, "a GUID has 16 bytes"))?;
        let bytes = decode(&name, &self.attributes)?;
        if bytes.is_empty() || bytes.len() > 4 {
            return Err(wrong(&name, "attributes have 1 to 4 bytes"));
        }
        let attributes = bytes
            .iter()
            .rfold(0, |value, byte| value << 8 | u32::from(*byte));
        if attributes & !KNOWN_ATTRIBUTES != 0 {
            return Err(wrong(
                &name,
                "the attributes have bits that are not defined",
            ));
        }
        let data = decode(&name, &self.value)?;
        if data.is_empty() {
            return Err(wrong(&name, "a variable has a value"));
        }
        Ok(InjectedVariable {
            name,
            vendor,
            attributes,
            data,
        })
    }
}

fn decode(name: &str, text: &str) -> Result<Vec<u8>, CustomVariablesError> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|_| wrong(name, "it is not base64"))
}

#[cfg(test)]
#[path = "custom_test.rs"]
mod tests;
