//! Extracting an IGVM image from a resource DLL.

use crate::cli;
use crate::files;
use crate::input;
use crate::open::Opener;
use crate::output;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use object::LittleEndian;
use object::read::pe::PeFile64;
use object::read::pe::ResourceDirectory;
use object::read::pe::ResourceDirectoryEntryData;
use object::read::pe::ResourceNameOrId;
use vmgs::Protection;
use vmgs::StoreAccess;
use vmgs_format::FileId;

/// Maximum length in bytes of the DLL.
const MAX_LEN: u64 = 256 << 20;

pub(crate) fn copy_igvmfile(opener: Opener, args: &cli::CopyIgvmfile) -> anyhow::Result<()> {
    let dll = input::read_file(&args.data_path, MAX_LEN)?;
    let image = find_image(&dll, args.resource_code as u16)
        .with_context(|| format!("finding the IGVM image in {}", args.data_path.display()))?;
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadWrite, &args.key)?;
    let existing = Existing::AskOrRefuse.unless(args.allow_overwrite);
    files::may_store(&store, FileId::GUEST_FIRMWARE, existing)?;
    let bar = output::progress(image.len() as u64);
    let result = store.write_from(
        FileId::GUEST_FIRMWARE,
        Protection::PlainOverEncrypted,
        image.len() as u64,
        &mut bar.wrap_read(image),
    );
    bar.finish_and_clear();
    result.context("storing the IGVM image")?;
    tracing::info!(bytes = image.len(), "stored the IGVM image");
    Ok(())
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
        bail!("the resource VMFW {id} does not have exactly one language");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit PE image of one section at address 0x1000 and offset 0x200, which is its resources:
    /// type `VMFW`, id 13510, one language, `image` as its data.
    fn dll(image: &[u8]) -> Vec<u8> {
        let mut pe = vec![0; 0x200];
        let put = |pe: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            if pe.len() < at + bytes.len() {
                pe.resize(at + bytes.len(), 0);
            }
            pe[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .collect::<Vec<_>>()
        };
        put(&mut pe, 0, b"MZ");
        put(&mut pe, 0x3c, &words(&[0x40]));
        put(&mut pe, 0x40, b"PE\0\0\x64\x86\x01\x00");
        // Size of the optional header, characteristics; then that header.
        put(&mut pe, 0x54, &[0xf0, 0, 0x22, 0x20]);
        put(&mut pe, 0x58, &[0x0b, 0x02]);
        put(&mut pe, 0x58 + 32, &words(&[0x1000, 0x200]));
        put(&mut pe, 0x58 + 108, &words(&[16]));
        let len = 0x100 + image.len() as u32;
        put(&mut pe, 0x58 + 112 + 16, &words(&[0x1000, len]));
        put(&mut pe, 0x148, b".rsrc\0\0\0");
        put(&mut pe, 0x150, &words(&[len, 0x1000, len, 0x200]));
        let directory = |named: u16, ids: u16| {
            let mut bytes = vec![0; 12];
            bytes.extend(named.to_le_bytes());
            bytes.extend(ids.to_le_bytes());
            bytes
        };
        let table = 0x8000_0000u32;
        put(&mut pe, 0x200, &directory(1, 0));
        put(&mut pe, 0x210, &words(&[table | 0x80, table | 0x20]));
        put(&mut pe, 0x220, &directory(0, 1));
        put(&mut pe, 0x230, &words(&[13510, table | 0x40]));
        put(&mut pe, 0x240, &directory(0, 1));
        put(&mut pe, 0x250, &words(&[1033, 0x60]));
        put(&mut pe, 0x260, &words(&[0x1100, image.len() as u32, 0, 0]));
        put(&mut pe, 0x280, b"\x04\0V\0M\0F\0W\0");
        put(&mut pe, 0x300, image);
        pe
    }

    #[test]
    fn the_image_is_found_by_type_and_id() {
        let dll = dll(b"an IGVM image");
        assert_eq!(find_image(&dll, 13510).unwrap(), b"an IGVM image");
        let error = find_image(&dll, 13515).unwrap_err();
        assert!(error.to_string().contains("13515"), "{error:#}");
    }

    #[test]
    fn other_and_damaged_files_are_refused() {
        let good = dll(b"an IGVM image");
        assert!(find_image(b"not an image", 13510).is_err());
        assert!(find_image(&good[..0x258], 13510).is_err());
        // No changed byte causes a panic.
        for at in 0..good.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = find_image(&bad, 13510);
            }
        }
    }
}
