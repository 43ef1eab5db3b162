//! Summarizes samples as medians, ratios and spreads.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// One measurement of one VMM.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct BenchSample {
    metric: String,
    unit: String,
    vmm: String,
    value: f64,
}

/// The summary: a row for each metric.
#[derive(Debug, Serialize)]
pub(super) struct BenchTable {
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    metric: String,
    unit: String,
    vmms: Vec<Summary>,
    /// The first VMM's median over the second's.
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Summary {
    vmm: String,
    samples: usize,
    median: f64,
    min: f64,
    max: f64,
}

impl BenchTable {
    pub(super) fn of(samples: &[BenchSample]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for sample in samples {
            if rows.iter().any(|row| row.metric == sample.metric) {
                continue;
            }
            let mut vmms: Vec<&str> = Vec::new();
            for sample in samples {
                if !vmms.contains(&&*sample.vmm) {
                    vmms.push(&sample.vmm);
                }
            }
            let vmms: Vec<_> = vmms
                .into_iter()
                .filter_map(|vmm| {
                    let values = samples
                        .iter()
                        .filter(|other| other.metric == sample.metric && other.vmm == vmm)
                        .map(|sample| sample.value);
                    Summary::of(vmm, values.collect())
                })
                .collect();
            let ratio = match &*vmms {
                [first, second] => Some(first.median / second.median),
                _ => None,
            };
            rows.push(Row {
                metric: sample.metric.clone(),
                unit: sample.unit.clone(),
                vmms,
                ratio,
            });
        }
        Self { rows }
    }

    /// Adds a row with a single number.
    pub(super) fn add_single(&mut self, metric: &str, unit: &str, vmm: &str, value: f64) {
        self.rows.push(Row {
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            vmms: Summary::of(vmm, vec![value]).into_iter().collect(),
            ratio: None,
        });
    }
}

impl Summary {
    fn of(vmm: &str, mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self {
            vmm: vmm.to_owned(),
            samples: values.len(),
            median,
            min,
            max,
        })
    }
}

impl fmt::Display for BenchTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            write!(f, "{} ({})", row.metric, row.unit)?;
            if let Some(ratio) = row.ratio {
                write!(
                    f,
                    ": {} / {} = {ratio:.3}",
                    row.vmms[0].vmm, row.vmms[1].vmm
                )?;
            }
            writeln!(f)?;
            for vmm in &row.vmms {
                writeln!(
                    f,
                    "  {:<8} median {:>11.1}   from {:>11.1} to {:>11.1}   ({} samples)",
                    vmm.vmm, vmm.median, vmm.min, vmm.max, vmm.samples
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let sample = |vmm: &str, value| BenchSample {
            metric: "time".to_owned(),
            unit: "ms".to_owned(),
            vmm: vmm.to_owned(),
            value,
        };
        let samples = [
            sample("a", 3.0),
            sample("b", 10.0),
            sample("a", 1.0),
            sample("b", 6.0),
            sample("a", 2.0),
        ];
        let table = BenchTable::of(&samples);
        assert_eq!(table.rows.len(), 1);
        let row = &table.rows[0];
        assert_eq!((row.vmms[0].median, row.vmms[1].median), (2.0, 8.0));
        assert_eq!((row.vmms[0].min, row.vmms[0].max), (1.0, 3.0));
        assert_eq!(row.ratio, Some(0.25));
    }
}
