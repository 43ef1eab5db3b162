//! The variables of PC firmware: an image of its flash chip.

use ovmf_image::VariablesError;
use ovmf_image::VariablesState;
use ovmf_image::check_variables;
use vmgs::Error;
use vmgs::Vmgs;
use vmgs_format::FileId;

/// The file that holds them.
pub(crate) const FILE: FileId = FileId::FLASH_VARIABLES;

/// Checks the variables as openvmm does before a VM starts, but for a firmware that has room for exactly these. Errors
/// of the store are the outer ones.
pub(crate) fn check(store: &mut Vmgs) -> Result<Result<VariablesState, VariablesError>, Error> {
    let content = store.read(FILE)?;
    Ok(check_variables(&content, content.len() as u64))
}
