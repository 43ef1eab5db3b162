//! The variables and their storage.

use crate::storage::NvramStorage;
use log_limit::LogLimit;
use std::error::Error;
use uefi_nvram_storage::Variables;
use uefi_specs::EfiStatus;

/// The variables and their storage. A change that is not durable did not happen.
pub(crate) struct NvramStore {
    variables: Variables,
    storage: Box<dyn NvramStorage>,
    /// Whether the storage may have other variables.
    is_stale: bool,
    failures: u64,
    log: LogLimit,
}

impl NvramStore {
    /// `variables`, which `storage` has too unless `is_stale`.
    pub(crate) fn new(
        variables: Variables,
        storage: Box<dyn NvramStorage>,
        is_stale: bool,
    ) -> Self {
        Self {
            variables,
            storage,
            is_stale,
            failures: 0,
            log: LogLimit::new(),
        }
    }

    pub(crate) fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Changes the variables with `change`, and makes the result durable. After an error nothing has changed.
    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(&mut Variables) -> Result<(), EfiStatus>,
    ) -> Result<(), EfiStatus> {
        let mut changed = self.variables.clone();
        change(&mut changed)?;
        // Firmware sets many variables to what they are.
        if changed != self.variables || self.is_stale {
            self.persist(changed.encode())
                .map_err(|()| EfiStatus::DEVICE_ERROR)?;
            self.variables = changed;
        }
        Ok(())
    }

    /// Replaces the variables, in memory only.
    pub(crate) fn replace(&mut self, variables: Variables) {
        if variables != self.variables {
            self.variables = variables;
            self.is_stale = true;
        }
    }

    /// Makes the variables durable, if they may not be. A failure is logged; the next change tries again.
    pub(crate) fn synchronize(&mut self) {
        if self.is_stale {
            // It was logged.
            let _ = self.persist(self.variables.encode());
        }
    }

    fn persist(&mut self, file: Vec<u8>) -> Result<(), ()> {
        match self.storage.persist(file) {
            Ok(()) => {
                self.is_stale = false;
                Ok(())
            }
            Err(error) => {
                // The storage has the old or the new variables.
                self.is_stale = true;
                self.failures = self.failures.saturating_add(1);
                if let Some(suppressed) = self.log.allow() {
                    tracing::error!(
                        storage = self.storage.describe(),
                        error = &*error as &dyn Error,
                        suppressed,
                        "cannot store the UEFI variables; the guest is told so"
                    );
                }
                Err(())
            }
        }
    }

    /// Where the variables are kept.
    pub(crate) fn place(&self) -> String {
        self.storage.describe()
    }

    /// Whether the storage has the variables.
    pub(crate) fn is_synchronized(&self) -> bool {
        !self.is_stale
    }

    /// How often they could not be stored.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }
}
