//! Taking an IGVM image out of a resource DLL.

use crate::cli;
use crate::files;
use crate::open::Place;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use object::LittleEndian;
use object::read::pe::PeFile64;
use object::read::pe::ResourceDirectory;
use object::read::pe::ResourceDirectoryEntryData;
use object::read::pe::ResourceNameOrId;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use vmgs::Access;
use vmgs::Protection;
use vmgs_format::FileId;

/// The largest DLL, and the largest image, that is taken.
const MAX_LEN: u64 = 256 << 20;

pub(crate) fn copy_igvmfile(place: Place, args: &cli::CopyIgvmfile) -> anyhow::Result<()> {
    let dll = read_dll(&args.data_path)?;
    let image = find_image(&dll, args.resource_code as u16)
        .with_context(|| format!("looking for the image in {}", args.data_path.display()))?;
    let mut store = place.open(&args.store.file_path, Access::ReadWrite)?;
    let existing = if args.allow_overwrite {
        Existing::Replace
    } else {
        Existing::AskOrRefuse
    };
    files::may_store(&store, FileId::GUEST_FIRMWARE, existing)?;
    store
        .write(
            FileId::GUEST_FIRMWARE,
            Protection::PlainOverEncrypted,
            image,
        )
        .context("storing the image")?;
    tracing::info!(bytes = image.len(), "stored the IGVM image");
    Ok(())
}

fn read_dll(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes))
        .with_context(|| format!("reading {}", path.display()))?;
    if bytes.len() as u64 > MAX_LEN {
        bail!("{} has more than {MAX_LEN} bytes", path.display());
    }
    Ok(bytes)
}

/// The resource of type `VMFW` with this id.
pub(crate) fn find_image(dll: &[u8], id: u16) -> anyhow::Result<&[u8]> {
    let pe = PeFile64::parse(dll).context("not a 64-bit PE image")?;
    let directories = pe.data_directories();
    let sections = pe.section_table();
    let Some(resources) = directories.resource_directory(dll, &sections)? else {
        bail!("the image has no resources");
    };
    let root = resources.root()?;
    let types = table(&resources, &root, |name| match name {
        ResourceNameOrId::Name(name) => name
            .to_string_lossy(resources)
            .is_ok_and(|name| name == "VMFW"),
        ResourceNameOrId::Id(_) => false,
    })
    .context("there is no resource of type VMFW")?;
    let languages = table(&resources, &types, |name| match name {
        ResourceNameOrId::Id(found) => found == id,
        ResourceNameOrId::Name(_) => false,
    })
    .with_context(|| format!("there is no resource VMFW {id}"))?;
    let [language] = languages.entries else {
        bail!("the resource VMFW {id} is not there in exactly one language");
    };
    let ResourceDirectoryEntryData::Data(entry) = language.data(resources)? else {
        bail!("the resource VMFW {id} is nested too deeply");
    };
    let (address, len) = (
        entry.offset_to_data.get(LittleEndian),
        entry.size.get(LittleEndian) as usize,
    );
    sections
        .pe_data_at(dll, address)
        .and_then(|data| data.get(..len))
        .with_context(|| format!("the resource VMFW {id} is outside the file"))
}

type Table<'a> = object::read::pe::ResourceDirectoryTable<'a>;

fn table<'a>(
    resources: &ResourceDirectory<'a>,
    table: &Table<'a>,
    wanted: impl Fn(ResourceNameOrId) -> bool,
) -> anyhow::Result<Table<'a>> {
    for entry in table.entries {
        if wanted(entry.name_or_id())
            && let ResourceDirectoryEntryData::Table(table) = entry.data(*resources)?
        {
            return Ok(table);
        }
    }
    bail!("not found")
}
