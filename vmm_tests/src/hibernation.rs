//! The hibernation status of a VM that is off.

use crate::Environment;
use anyhow::Context;
use serde::Deserialize;
use std::path::Path;
use std::process::Command;

/// The output of `openvmm hibernation status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HibernationStatus {
    /// What the next start would do: `cold`, `resume`, `resume_unpinned` or `refuse`.
    pub next_start: String,
    /// The reason, as text.
    pub reason: String,
}

impl HibernationStatus {
    /// Asks openvmm for the status of the VM whose VMGS file is `store`.
    pub fn of(environment: &Environment, store: &Path) -> anyhow::Result<Self> {
        let output = Command::new(&environment.openvmm)
            .args(["hibernation", "status", "--json", "--vmgs"])
            .arg(store)
            .output()
            .context("cannot run openvmm")?;
        anyhow::ensure!(
            output.status.success(),
            "openvmm hibernation status: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "openvmm hibernation status printed {}",
                String::from_utf8_lossy(&output.stdout)
            )
        })
    }
}
