//! The command line.

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use std::path::PathBuf;
use vmgs::Container;
use vmgs_format::FileId;

/// Inspects and edits VMGS guest-state files.
#[derive(Parser)]
#[command(name = "vmgstool", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Log everything, on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Answer queries in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The store is a bare disk without VHD footer, with sectors of this many bytes
    #[arg(long, global = true, value_name = "SECTOR", num_args = 0..=1, require_equals = true,
          default_missing_value = "512", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(["512", "4096"]).try_map(|text| text.parse::<u32>()))]
    raw: Option<u32>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    pub(crate) fn container(&self) -> Container {
        match self.raw {
            Some(sector_size) => Container::Raw { sector_size },
            None => Container::Vhd1,
        }
    }
}

fn parse_file_id(text: &str) -> Result<FileId, String> {
    FileId::from_name(text)
        .or_else(|| text.parse().ok().map(FileId))
        .ok_or_else(|| "not the name of a file and not a number".into())
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a store
    Create(Create),
    /// Store a file, under an id that is free unless overwriting is allowed
    Write(Write),
    /// Store a file of any kind (like write; refuses to overwrite without --force)
    Inject(Inject),
    /// Show a file's content, or write it to a file
    Dump(Dump),
    /// Write a file's content to a file, or all files' to a directory
    Extract(Extract),
    /// Show both headers and which is active
    DumpHeaders(Store),
    /// Print the size of a file's content in bytes
    QuerySize(OneFileKey),
    /// Replace the key of an encrypted store
    UpdateKey(UpdateKey),
    /// Encrypt an unencrypted store with a key
    Encrypt(Encrypt),
    /// Replace all keys inside an encrypted store and wipe free space
    Rekey(StoreKey),
    /// Report by the exit code how the store is encrypted
    QueryEncryption(Store),
    /// Give a file another id
    Move(Move),
    /// Delete a file
    Delete(OneFileKey),
    /// Show the file table
    DumpFileTable(StoreOptionalKey),
    /// List the files with a summary of their content
    Ls(StoreOptionalKey),
    /// Check the whole store; the exit code is the severity of the findings
    Verify(Verify),
    /// Make a store larger
    Grow(Grow),
    /// Overwrite free space with zeros
    Scrub(StoreOptionalKey),
    /// Convert a store of format version 2.0 to version 3.0
    Upgrade(Store),
    /// Accept a file that was replaced by an unencrypted one while the store was locked
    AcceptPlain(OneFileKey),
    /// Inspect and edit UEFI variables
    #[command(subcommand)]
    UefiNvram(UefiNvram),
    /// Store the IGVM image from a resource DLL as GUEST_FIRMWARE
    CopyIgvmfile(CopyIgvmfile),
    /// Create keys and stores for tests
    #[command(subcommand)]
    Test(Test),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
pub(crate) struct Store {
    /// The store
    #[arg(short, long, alias = "filepath", value_name = "PATH")]
    pub(crate) file_path: PathBuf,
}

#[derive(Args)]
pub(crate) struct OptionalKey {
    /// A file with the 32 bytes of the store's key
    #[arg(short, long, alias = "keypath", value_name = "PATH")]
    pub(crate) key_path: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct StoreOptionalKey {
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) key: OptionalKey,
}

#[derive(Args)]
pub(crate) struct StoreKey {
    #[command(flatten)]
    pub(crate) store: Store,
    /// A file with the 32 bytes of the store's key
    #[arg(short, long, alias = "keypath", value_name = "PATH")]
    pub(crate) key_path: PathBuf,
}

#[derive(Args)]
pub(crate) struct Id {
    /// The file: its name (BIOS_NVRAM, HIBERNATION_TOKEN...) or number
    #[arg(short = 'i', long = "file-id", alias = "fileid", value_name = "ID", value_parser = parse_file_id)]
    pub(crate) id: FileId,
}

#[derive(Args)]
pub(crate) struct OneFileKey {
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) file: Id,
    #[command(flatten)]
    pub(crate) key: OptionalKey,
}

/// The supported encryption algorithms.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Algorithm {
    #[value(name = "AES_GCM")]
    AesGcm,
}

#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) store: Store,
    /// Size of the store in bytes, without the footer (default: 4194304)
    #[arg(short = 's', long, alias = "filesize", value_name = "BYTES")]
    pub(crate) file_size: Option<u64>,
    /// A file with the 32 bytes of the key that encrypts the store
    #[arg(
        short,
        long,
        alias = "keypath",
        value_name = "PATH",
        requires = "encryption_algorithm"
    )]
    pub(crate) key_path: Option<PathBuf>,
    /// Encryption algorithm
    #[arg(short, long, alias = "encryptionalgorithm", requires = "key_path")]
    pub(crate) encryption_algorithm: Option<Algorithm>,
    /// Replace an existing file
    #[arg(long, visible_alias = "force", alias = "forcecreate")]
    pub(crate) force_create: bool,
}

#[derive(Args)]
pub(crate) struct Write {
    #[command(flatten)]
    pub(crate) target: OneFileKey,
    /// The file to read the content from
    #[arg(short, long, alias = "datapath", value_name = "PATH")]
    pub(crate) data_path: PathBuf,
    /// Replace an existing file
    #[arg(long, visible_alias = "force", alias = "allowoverwrite")]
    pub(crate) allow_overwrite: bool,
}

#[derive(Args)]
pub(crate) struct Inject {
    #[command(flatten)]
    pub(crate) write: Write,
    /// Store it unencrypted although the store is encrypted
    #[arg(long)]
    pub(crate) plain: bool,
}

#[derive(Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    pub(crate) source: OneFileKey,
    /// The file to write the content to
    #[arg(short, long, alias = "datapath", value_name = "PATH")]
    pub(crate) data_path: Option<PathBuf>,
    /// Write the bytes to standard output
    #[arg(long, alias = "rawstdout", conflicts_with = "data_path")]
    pub(crate) raw_stdout: bool,
    /// Decode the content, if its format is known
    #[arg(long, conflicts_with_all = ["data_path", "raw_stdout"])]
    pub(crate) decode: bool,
    /// Replace an existing file without asking
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct Extract {
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) key: OptionalKey,
    /// The file (default: all files)
    #[arg(short = 'i', long = "file-id", alias = "fileid", value_name = "ID", value_parser = parse_file_id)]
    pub(crate) id: Option<FileId>,
    /// The file to write to, or the directory if all files are extracted
    #[arg(short, long, alias = "datapath", value_name = "PATH")]
    pub(crate) data_path: PathBuf,
    /// Extract the stored bytes without decrypting them; also works for damaged files
    #[arg(long)]
    pub(crate) stored: bool,
    /// Extract the bare firmware image of HIBERNATION_FIRMWARE, if its digests are right
    #[arg(long, conflicts_with = "stored")]
    pub(crate) image: bool,
    /// Extract one section of HIBERNATION_FIRMWARE, if its digests are right
    #[arg(long, value_name = "NAME", conflicts_with_all = ["stored", "image"])]
    pub(crate) section: Option<String>,
    /// Replace existing files
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct UpdateKey {
    #[command(flatten)]
    pub(crate) store: Store,
    /// A file with the 32 bytes of the key that opens the store now
    #[arg(short, long, alias = "keypath", value_name = "PATH")]
    pub(crate) key_path: PathBuf,
    /// A file with the 32 bytes of the new key
    #[arg(short, long, alias = "newkeypath", value_name = "PATH")]
    pub(crate) new_key_path: PathBuf,
    /// Encryption algorithm
    #[arg(short, long, alias = "encryptionalgorithm")]
    pub(crate) encryption_algorithm: Algorithm,
}

#[derive(Args)]
pub(crate) struct Encrypt {
    #[command(flatten)]
    pub(crate) target: StoreKey,
    /// Encryption algorithm
    #[arg(short, long, alias = "encryptionalgorithm")]
    pub(crate) encryption_algorithm: Algorithm,
}

#[derive(Args)]
pub(crate) struct Move {
    #[command(flatten)]
    pub(crate) store: Store,
    /// The file
    #[arg(long, aliases = ["src", "srcfileid"], value_name = "ID", value_parser = parse_file_id)]
    pub(crate) src_file_id: FileId,
    /// Its new id
    #[arg(long, aliases = ["dst", "dstfileid"], value_name = "ID", value_parser = parse_file_id)]
    pub(crate) dst_file_id: FileId,
    #[command(flatten)]
    pub(crate) key: OptionalKey,
    /// Replace an existing file
    #[arg(long, visible_alias = "force", alias = "allowoverwrite")]
    pub(crate) allow_overwrite: bool,
}

#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) target: StoreOptionalKey,
    /// Refuse a store with a damaged header instead of using the other header
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Args)]
pub(crate) struct Grow {
    #[command(flatten)]
    pub(crate) store: Store,
    /// New size of the store in bytes, without the footer
    #[arg(short = 's', long, alias = "filesize", value_name = "BYTES")]
    pub(crate) file_size: u64,
}

#[derive(Subcommand)]
pub(crate) enum UefiNvram {
    /// List the variables with their sizes
    List(StoreOptionalKey),
    /// Show all variables with their decoded content
    Dump(NvramDump),
    /// Show the variables in a JSON export
    DumpFromJson(NvramDumpFromJson),
    /// Write the variables to a JSON document
    Export(NvramExport),
    /// Add or replace the variables of a JSON document
    Import(NvramImport),
    /// Add or replace one variable
    Add(NvramAdd),
    /// Delete one variable
    #[command(visible_alias = "remove")]
    RemoveEntry(NvramRemove),
    /// Delete BootOrder and the boot entries it lists
    #[command(visible_alias = "delete-boot-entries")]
    RemoveBootEntries(NvramRemoveBoot),
}

#[derive(Args)]
pub(crate) struct DumpStyle {
    /// Write to this file
    #[arg(short, long, aliases = ["outpath", "outputpath"], value_name = "PATH")]
    pub(crate) output_path: Option<PathBuf>,
    /// Replace an existing file without asking
    #[arg(long, requires = "output_path")]
    pub(crate) force: bool,
    /// Truncate lines to the width of a terminal
    #[arg(short, long)]
    pub(crate) truncate: bool,
}

#[derive(Args)]
pub(crate) struct NvramDump {
    #[command(flatten)]
    pub(crate) target: StoreOptionalKey,
    #[command(flatten)]
    pub(crate) style: DumpStyle,
}

#[derive(Args)]
pub(crate) struct NvramDumpFromJson {
    /// The JSON document
    #[arg(short, long, alias = "filepath", value_name = "PATH")]
    pub(crate) file_path: PathBuf,
    #[command(flatten)]
    pub(crate) style: DumpStyle,
}

#[derive(Args)]
pub(crate) struct NvramExport {
    #[command(flatten)]
    pub(crate) target: StoreOptionalKey,
    /// Write to this file
    #[arg(short, long, aliases = ["outpath", "outputpath"], value_name = "PATH")]
    pub(crate) output_path: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "output_path")]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct NvramImport {
    #[command(flatten)]
    pub(crate) target: StoreOptionalKey,
    /// The JSON document
    #[arg(short, long, alias = "datapath", value_name = "PATH")]
    pub(crate) data_path: PathBuf,
    /// Delete all other variables
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Args)]
pub(crate) struct VariableName {
    /// The variable's name
    #[arg(short, long)]
    pub(crate) name: String,
    /// The variable's vendor GUID, with or without braces
    #[arg(short, long, value_name = "GUID")]
    pub(crate) vendor: String,
}

#[derive(Args)]
pub(crate) struct NvramAdd {
    #[command(flatten)]
    pub(crate) target: StoreOptionalKey,
    #[command(flatten)]
    pub(crate) variable: VariableName,
    /// The file to read the variable's data from
    #[arg(short, long, alias = "datapath", value_name = "PATH")]
    pub(crate) data_path: PathBuf,
    /// Its attributes (7: non-volatile, boot service and runtime access)
    #[arg(short, long, default_value = "7", value_parser = parse_number)]
    pub(crate) attributes: u32,
    /// Replace an existing variable
    #[arg(long, visible_alias = "allow-overwrite")]
    pub(crate) force: bool,
}

/// Parses a decimal number, or a hexadecimal number with the prefix `0x`.
fn parse_number(text: &str) -> Result<u32, String> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .map_err(|error| error.to_string())
}

#[derive(Args)]
pub(crate) struct NvramRemove {
    #[command(flatten)]
    pub(crate) target: StoreOptionalKey,
    #[command(flatten)]
    pub(crate) variable: VariableName,
}

#[derive(Args)]
pub(crate) struct NvramRemoveBoot {
    #[command(flatten)]
    pub(crate) target: StoreOptionalKey,
    /// Only show what would be deleted
    #[arg(short = 'n', long, alias = "dryrun")]
    pub(crate) dry_run: bool,
}

/// The images in a resource DLL, by their resource ids.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ResourceCode {
    Nonconfidential = 13510,
    Snp = 13515,
    SnpNoHcl = 13516,
    Tdx = 13520,
    TdxNoHcl = 13521,
}

#[derive(Args)]
pub(crate) struct CopyIgvmfile {
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) key: OptionalKey,
    /// The DLL
    #[arg(short, long, alias = "datapath", value_name = "PATH")]
    pub(crate) data_path: PathBuf,
    /// Which image in the DLL
    #[arg(short, long, alias = "resourcecode")]
    pub(crate) resource_code: ResourceCode,
    /// Replace an existing image
    #[arg(long, visible_alias = "force", alias = "allowoverwrite")]
    pub(crate) allow_overwrite: bool,
}

#[derive(Subcommand)]
pub(crate) enum Test {
    /// Create a key file
    MakeKey {
        /// The file
        #[arg(
            long,
            alias = "keypath",
            default_value = "key.bin",
            value_name = "PATH"
        )]
        key_path: PathBuf,
        /// Fill it with this character instead of random bytes
        #[arg(long)]
        repeated: Option<char>,
        /// Replace an existing file
        #[arg(long, visible_alias = "force", alias = "forcecreate")]
        force_create: bool,
    },
    /// Create a store with two keys, and the keys
    TwoKeys {
        #[command(flatten)]
        store: Store,
        /// The first key
        #[arg(
            long,
            alias = "firstkeypath",
            default_value = "firstkey.bin",
            value_name = "PATH"
        )]
        first_key_path: PathBuf,
        /// The second key
        #[arg(
            long,
            alias = "secondkeypath",
            default_value = "secondkey.bin",
            value_name = "PATH"
        )]
        second_key_path: PathBuf,
        /// Replace an existing store
        #[arg(long, visible_alias = "force", alias = "forcecreate")]
        force_create: bool,
    },
}
