//! Inspecting and editing UEFI variables.

use crate::cli;
use crate::cli::UefiNvram;
use crate::device_path_text;
use crate::input;
use crate::nvram_json;
use crate::nvram_text;
use crate::open::Opener;
use crate::open::require_unlocked;
use crate::output;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use uefi_nvram_storage::EfiTime;
use uefi_nvram_storage::LoadOption;
use uefi_nvram_storage::MAX_DATA_LEN;
use uefi_nvram_storage::Name;
use uefi_nvram_storage::NameQuirk;
use uefi_nvram_storage::Variable;
use uefi_nvram_storage::VariableKey;
use uefi_nvram_storage::Variables;
use uefi_nvram_storage::boot_option_number;
use uefi_nvram_storage::boot_order;
use uefi_nvram_storage::guid::GLOBAL_VARIABLE;
use vmgs::Protection;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_format::FileId;

/// Maximum length in bytes of a JSON document.
const MAX_JSON_LEN: u64 = 16 << 20;

pub(crate) fn run(
    opener: Opener,
    command: &UefiNvram,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match command {
        UefiNvram::List(args) => {
            let (_, variables) = load(opener, args, StoreAccess::ReadOnly)?;
            list(&variables, json, out)
        }
        UefiNvram::Dump(args) => {
            let (_, variables) = load(opener, &args.target, StoreAccess::ReadOnly)?;
            dump(
                &variables,
                &args.style,
                nvram_text::Timestamps::Shown,
                json,
                out,
            )
        }
        UefiNvram::DumpFromJson(args) => {
            let variables = nvram_json::parse(&read_json(&args.file_path)?)?;
            dump(
                &variables,
                &args.style,
                nvram_text::Timestamps::Hidden,
                json,
                out,
            )
        }
        UefiNvram::Export(args) => {
            let (_, variables) = load(opener, &args.target, StoreAccess::ReadOnly)?;
            let document = json!({ "variables": nvram_json::variables(&variables) });
            match &args.output_path {
                Some(path) => {
                    let existing = Existing::AskOrRefuse.unless(args.force);
                    output::write_file(path, existing, |out| output::print_json(out, &document))
                }
                None => output::print_json(out, &document),
            }
        }
        UefiNvram::Import(args) => import(opener, args),
        UefiNvram::Add(args) => add(opener, args),
        UefiNvram::RemoveEntry(args) => remove_entry(opener, args),
        UefiNvram::RemoveBootEntries(args) => remove_boot_entries(opener, args, json, out),
    }
}

fn decode(bytes: &[u8]) -> anyhow::Result<Variables> {
    // Some firmware left variables with malformed names, which are left out.
    let variables =
        Variables::decode(bytes, NameQuirk::Skip).context("decoding the UEFI variables")?;
    let left_out = bytes.len() - variables.encoded_len();
    if left_out != 0 {
        tracing::warn!(
            bytes = left_out,
            "leaving out variables that have a malformed name or occur twice"
        );
    }
    Ok(variables)
}

/// Opens a store. To change it, the store must be unlocked.
fn open(opener: Opener, args: &cli::StoreOptionalKey, access: StoreAccess) -> anyhow::Result<Vmgs> {
    let store = opener.open_unlocked(&args.store.file_path, access, &args.key)?;
    if access == StoreAccess::ReadWrite {
        require_unlocked(&store)?;
    }
    let (here, other) = (FileId::BIOS_NVRAM, FileId::FLASH_VARIABLES);
    if !store.is_allocated(here) && store.is_allocated(other) {
        tracing::warn!(
            "this store has no {here}; the variables of its guest are those of OVMF, in {other} (file {}), \
             which uefi-nvram does not read: change them in the guest, or extract that file for another tool",
            other.0
        );
    }
    Ok(store)
}

fn load(
    opener: Opener,
    args: &cli::StoreOptionalKey,
    access: StoreAccess,
) -> anyhow::Result<(Vmgs, Variables)> {
    let mut store = open(opener, args, access)?;
    let variables = decode(&read_or_empty(&mut store)?)?;
    Ok((store, variables))
}

/// The stored bytes of all variables; no bytes if none were ever stored.
fn read_or_empty(store: &mut Vmgs) -> anyhow::Result<Vec<u8>> {
    match store.read(FileId::BIOS_NVRAM) {
        Err(vmgs::Error::NotAllocated(_)) => Ok(Vec::new()),
        read => read.context("reading the UEFI variables"),
    }
}

/// Stores the variables, encrypted if the store is, in one commit.
fn save(store: &mut Vmgs, variables: &Variables) -> anyhow::Result<()> {
    store
        .write(
            FileId::BIOS_NVRAM,
            Protection::IfEncrypted,
            &variables.encode(),
        )
        .context("storing the UEFI variables")
}

fn read_json(path: &Path) -> anyhow::Result<serde_json::Value> {
    let bytes = input::read_file(path, MAX_JSON_LEN)?;
    serde_json::from_slice(&bytes).with_context(|| format!("decoding {}", path.display()))
}

fn list(variables: &Variables, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        let listed: Vec<_> = variables
            .iter()
            .map(|(key, variable)| {
                json!({
                    "vendor": key.vendor.to_string(),
                    "name": key.name.to_string(),
                    "attributes": variable.attributes,
                    "size": variable.data.len(),
                })
            })
            .collect();
        let answer = json!({ "variables": listed, "bytes": variables.encoded_len() });
        return output::print_json(out, &answer);
    }
    for (key, variable) in variables.iter() {
        writeln!(
            out,
            "{} {:#06x} {:>6} {}",
            key.vendor,
            variable.attributes,
            variable.data.len(),
            key.name
        )?;
    }
    Ok(())
}

fn dump(
    variables: &Variables,
    style: &cli::DumpStyle,
    timestamps: nvram_text::Timestamps,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let print = |out: &mut dyn Write| {
        if json {
            let document = json!({ "variables": nvram_json::variables(variables) });
            return output::print_json(out, &document);
        }
        let width = if style.truncate {
            nvram_text::Width::Terminal
        } else {
            nvram_text::Width::Unlimited
        };
        let text = nvram_text::text(variables, timestamps, width);
        Ok(out.write_all(text.as_bytes())?)
    };
    match &style.output_path {
        Some(path) => {
            let existing = Existing::AskOrReplace.unless(style.force);
            output::write_file(path, existing, print)?;
        }
        None => print(out)?,
    }
    tracing::info!(count = variables.len(), "UEFI variables");
    Ok(())
}

fn key_of(variable: &cli::VariableName) -> anyhow::Result<VariableKey> {
    let vendor = variable
        .vendor
        .parse()
        .with_context(|| format!("{:?} is not a vendor GUID", variable.vendor))?;
    Ok(VariableKey {
        vendor,
        name: Name::new(&variable.name).context("the name of a variable cannot contain a NUL")?,
    })
}

fn import(opener: Opener, args: &cli::NvramImport) -> anyhow::Result<()> {
    let imported = nvram_json::parse(&read_json(&args.data_path)?)?;
    let mut store = open(opener, &args.target, StoreAccess::ReadWrite)?;
    let stored = read_or_empty(&mut store)?;
    let mut variables = if args.replace {
        Variables::new()
    } else {
        decode(&stored)?
    };
    for (key, variable) in imported.iter() {
        variables
            .set(key.clone(), variable.clone())
            .with_context(|| format!("adding {}", key.name))?;
    }
    save(&mut store, &variables)?;
    tracing::info!(count = imported.len(), "imported UEFI variables");
    Ok(())
}

fn add(opener: Opener, args: &cli::NvramAdd) -> anyhow::Result<()> {
    let key = key_of(&args.variable)?;
    let data = input::read_file(&args.data_path, MAX_DATA_LEN as u64)?;
    let mut store = open(opener, &args.target, StoreAccess::ReadWrite)?;
    let mut variables = decode(&read_or_empty(&mut store)?)?;
    if variables.get(&key).is_some() && !args.force {
        output::may_replace(&format!("variable {}", key.name), Existing::AskOrRefuse)?;
    }
    let variable = Variable {
        attributes: args.attributes,
        timestamp: EfiTime::default(),
        data,
    };
    variables
        .set(key, variable)
        .with_context(|| format!("adding {}", args.variable.name))?;
    save(&mut store, &variables)
}

fn remove_entry(opener: Opener, args: &cli::NvramRemove) -> anyhow::Result<()> {
    let key = key_of(&args.variable)?;
    let (mut store, mut variables) = load(opener, &args.target, StoreAccess::ReadWrite)?;
    if variables.remove(&key).is_none() {
        bail!("there is no variable {} of {}", key.name, key.vendor);
    }
    save(&mut store, &variables)
}

fn remove_boot_entries(
    opener: Opener,
    args: &cli::NvramRemoveBoot,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let access = if args.dry_run {
        StoreAccess::ReadOnly
    } else {
        StoreAccess::ReadWrite
    };
    let (mut store, mut variables) = load(opener, &args.target, access)?;
    let order = VariableKey {
        vendor: GLOBAL_VARIABLE,
        name: Name::new("BootOrder").context("naming BootOrder")?,
    };
    let numbers = match variables.get(&order) {
        Some(variable) => boot_order(&variable.data).context("BootOrder has an odd length")?,
        None => bail!("there is no BootOrder"),
    };
    // Compare numbers, because some firmware wrote names with lower-case digits.
    let mut listed = Vec::new();
    for number in numbers {
        let found = listed.len();
        listed.extend(variables.iter().map(|(key, _)| key.clone()).filter(|key| {
            key.vendor == GLOBAL_VARIABLE
                && boot_option_number(&key.name.to_string()) == Some(number)
        }));
        if listed.len() == found {
            tracing::warn!("BootOrder lists Boot{number:04X}, which does not exist");
        }
    }
    let mut removed = Variables::new();
    let mut text = String::new();
    for (i, key) in listed.iter().enumerate() {
        // A number can be listed twice.
        let Some(variable) = variables.remove(key) else {
            continue;
        };
        let _ = match LoadOption::decode(&variable.data) {
            Ok(option) => writeln!(
                text,
                "{i}: {}: {}",
                key.name,
                device_path_text::load_option(&option)
            ),
            Err(error) => writeln!(text, "{i}: {}: {error}", key.name),
        };
        removed.set(key.clone(), variable)?;
    }
    variables.remove(&order);
    if json {
        let document = json!({ "variables": nvram_json::variables(&removed) });
        output::print_json(out, &document)?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    // Errors of the output are found before the store is changed.
    out.flush()?;
    if args.dry_run {
        return Ok(());
    }
    // One commit, so that a crash leaves all of them or none.
    save(&mut store, &variables)
}
