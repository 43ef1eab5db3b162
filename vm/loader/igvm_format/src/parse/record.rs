//! A record while it is read.

use crate::IgvmError;
use crate::PAGE;
use crate::Problem;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;

/// A record that is being read.
#[derive(Debug, Copy, Clone)]
pub(super) struct Record<'a> {
    pub(super) offset: u64,
    pub(super) name: &'static str,
    pub(super) body: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn error(&self, problem: Problem) -> IgvmError {
        IgvmError {
            offset: self.offset,
            structure: self.name,
            problem,
        }
    }

    /// The body as a structure.
    pub(super) fn read<T>(&self) -> Result<&'a T, IgvmError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        T::ref_from_bytes(self.body).map_err(|_| {
            self.error(Problem::Length {
                found: self.body.len() as u32,
                expected: size_of::<T>() as u32,
            })
        })
    }

    pub(super) fn require(
        &self,
        holds: bool,
        field: &'static str,
        value: u64,
        expected: &'static str,
    ) -> Result<(), IgvmError> {
        self.known(holds.then_some(()), field, value, expected)
    }

    /// The value that a number stands for, if there is one.
    pub(super) fn known<T>(
        &self,
        value: Option<T>,
        field: &'static str,
        number: u64,
        expected: &'static str,
    ) -> Result<T, IgvmError> {
        value.ok_or_else(|| {
            self.error(Problem::Value {
                field,
                value: number,
                expected,
            })
        })
    }

    pub(super) fn require_zero(&self, is_zero: bool, field: &'static str) -> Result<(), IgvmError> {
        let problem = Problem::NotZero { field };
        is_zero.then_some(()).ok_or_else(|| self.error(problem))
    }

    pub(super) fn page_multiple(&self, field: &'static str, value: u64) -> Result<(), IgvmError> {
        let expected = "a multiple of 4096 is needed";
        self.require(value.is_multiple_of(PAGE), field, value, expected)
    }

    /// Checks a range of whole pages.
    pub(super) fn pages(&self, gpa: u64, size: u64) -> Result<(), IgvmError> {
        self.page_multiple("the address", gpa)?;
        self.page_multiple("the size", size)?;
        self.require(size != 0, "the size", size, "it must not be empty")?;
        match gpa.checked_add(size) {
            Some(_) => Ok(()),
            None => Err(self.error(Problem::Overflow { gpa, size })),
        }
    }
}
