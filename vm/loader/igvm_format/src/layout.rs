//! What the records of a platform fill in guest memory.

use crate::Directive;
use crate::IgvmError;
use crate::IgvmFile;
use crate::Problem;
use std::collections::HashMap;

/// Memory that a record fills.
#[derive(Debug, Copy, Clone)]
struct Filled {
    start: u64,
    end: u64,
    what: &'static str,
    offset: u64,
}

impl IgvmFile<'_> {
    /// Checks that no two records fill the same memory on the platforms of `mask`.
    pub fn check_overlaps(&self, mask: u32) -> Result<(), IgvmError> {
        let mut areas = HashMap::new();
        let mut filled = Vec::new();
        for at in &self.directives {
            let directive = &at.record;
            let (gpa, size) = match directive {
                Directive::ParameterArea(area) => {
                    areas.insert(area.index, area.size);
                    continue;
                }
                _ if !directive.applies_to(mask) => continue,
                Directive::PageData(page) => (page.gpa, page.size()),
                Directive::ParameterInsert(insert) => {
                    (insert.gpa, areas.get(&insert.area).copied().unwrap_or(0))
                }
                Directive::ErrorRange(range) => (range.gpa, range.size.into()),
                _ => continue,
            };
            filled.push(Filled {
                start: gpa,
                // Parsing checked that this does not overflow.
                end: gpa.saturating_add(size),
                what: directive.name(),
                offset: at.offset,
            });
        }
        filled.sort_by_key(|filled| (filled.start, filled.offset));
        for pair in filled.windows(2) {
            let [other, this] = pair else { continue };
            if other.end > this.start {
                return Err(IgvmError {
                    offset: this.offset,
                    structure: this.what,
                    problem: Problem::Overlap {
                        start: this.start,
                        end: this.end,
                        other: other.what,
                        other_offset: other.offset,
                        other_start: other.start,
                        other_end: other.end,
                    },
                });
            }
        }
        Ok(())
    }
}
