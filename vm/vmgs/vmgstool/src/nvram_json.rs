//! UEFI variables in JSON.

use anyhow::Context;
use anyhow::bail;
use data_encoding::HEXLOWER;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use uefi_nvram_storage::EfiTime;
use uefi_nvram_storage::Name;
use uefi_nvram_storage::Variable;
use uefi_nvram_storage::VariableKey;
use uefi_nvram_storage::Variables;
use uuid::Uuid;
use zerocopy::FromBytes;
use zerocopy::IntoBytes;

/// Id of the device whose state holds the variables in an export of the older format.
const DEVICE: &str = "ac6b8dc1-3257-4a70-b1b2-a9c9215659ad";

/// All variables, in the form that [`parse`] reads.
pub(crate) fn variables(variables: &Variables) -> Vec<Value> {
    variables
        .iter()
        .map(|(key, variable)| {
            json!({
                "vendor": key.vendor.to_string(),
                "name": key.name.to_string(),
                "attributes": variable.attributes,
                "size": variable.data.len(),
                "timestamp": HEXLOWER.encode(variable.timestamp.as_bytes()),
                "data": HEXLOWER.encode(&variable.data),
            })
        })
        .collect()
}

#[derive(Deserialize)]
struct Document {
    variables: Vec<OurVariable>,
}

#[derive(Deserialize)]
struct OurVariable {
    vendor: String,
    name: String,
    attributes: u32,
    #[serde(default)]
    timestamp: Option<String>,
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Export {
    devices: BTreeMap<String, Device>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Device {
    #[serde(default)]
    states: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Nvram {
    vendors: BTreeMap<String, Vendor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Vendor {
    variables: BTreeMap<String, ExportedVariable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExportedVariable {
    attributes: u32,
    data: Vec<u8>,
}

/// Decodes a document: an export of this tool, or an export of the older format.
pub(crate) fn parse(document: &Value) -> anyhow::Result<Variables> {
    if document.get("variables").is_some() {
        let document = Document::deserialize(document).context("decoding the list of variables")?;
        return ours(document);
    }
    let export = Export::deserialize(document).context("decoding the export of variables")?;
    exported(export)
}

fn key(vendor: &str, name: &str) -> anyhow::Result<VariableKey> {
    Ok(VariableKey {
        vendor: vendor
            .parse::<Uuid>()
            .with_context(|| format!("invalid vendor GUID {vendor:?}"))?,
        name: Name::new(name).with_context(|| format!("the name {name:?} contains a NUL"))?,
    })
}

fn ours(document: Document) -> anyhow::Result<Variables> {
    let mut variables = Variables::new();
    for variable in document.variables {
        let context = || format!("the variable {:?}", variable.name);
        let timestamp = match &variable.timestamp {
            Some(text) => (HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok())
                .and_then(|bytes| EfiTime::read_from_bytes(&bytes).ok())
                .with_context(context)
                .context("a timestamp is not 32 hexadecimal digits")?,
            None => EfiTime::default(),
        };
        let data = HEXLOWER_PERMISSIVE
            .decode(variable.data.as_bytes())
            .with_context(context)
            .context("data is not hexadecimal")?;
        let value = Variable {
            attributes: variable.attributes,
            timestamp,
            data,
        };
        variables
            .set(key(&variable.vendor, &variable.name)?, value)
            .with_context(context)?;
    }
    Ok(variables)
}

fn exported(export: Export) -> anyhow::Result<Variables> {
    let device = export
        .devices
        .into_iter()
        .find(|(id, _)| id.eq_ignore_ascii_case(DEVICE));
    let Some((_, mut device)) = device else {
        bail!("the export has no device {DEVICE}");
    };
    let state = device
        .states
        .remove("Nvram")
        .context("the export has no state `Nvram`")?;
    let nvram: Nvram = serde_json::from_value(state).context("decoding the exported variables")?;
    let mut variables = Variables::new();
    for (vendor, list) in nvram.vendors {
        for (name, variable) in list.variables {
            let value = Variable {
                attributes: variable.attributes,
                timestamp: EfiTime::default(),
                data: variable.data,
            };
            variables
                .set(key(&vendor, &name)?, value)
                .with_context(|| format!("the variable {name:?}"))?;
        }
    }
    Ok(variables)
}
