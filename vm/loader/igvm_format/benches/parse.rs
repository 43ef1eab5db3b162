//! How long it takes to read a file.

#![allow(missing_docs, reason = "a benchmark")]

use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use igvm_format::At;
use igvm_format::Directive;
use igvm_format::IgvmFile;
use igvm_format::PageDataRecord;
use igvm_format::PageDataType;
use igvm_format::PageFlags;
use igvm_format::Platform;
use igvm_format::PlatformType;
use igvm_format::Revision;
use std::hint::black_box;

/// A file with as many pages, of which each has content of its own.
fn file(count: u64) -> Vec<u8> {
    let content: Vec<Vec<u8>> = (0..count).map(|n| n.to_le_bytes().repeat(512)).collect();
    let platform = Platform {
        mask: 1,
        highest_vtl: 0,
        platform_type: PlatformType::Native,
        shared_gpa_boundary: 0,
    };
    let pages = (0..).zip(&content).map(|(n, data): (u64, _)| {
        At::from(Directive::PageData(PageDataRecord {
            gpa: n * 4096,
            mask: 1,
            flags: PageFlags::default(),
            data_type: PageDataType::Normal,
            data,
        }))
    });
    let file = IgvmFile {
        revision: Revision::V1,
        platforms: vec![platform.into()],
        initializations: Vec::new(),
        directives: pages.collect(),
        skipped: Vec::new(),
    };
    file.write().unwrap_or_default()
}

fn parse(c: &mut Criterion) {
    let bytes = file(10_000);
    c.bench_function("parse_10000_directives", |b| {
        b.iter(|| {
            let file = IgvmFile::parse(black_box(&bytes));
            file.and_then(|file| file.check_overlaps(1).map(|()| file.directives.len()))
        });
    });
}

criterion_group!(benches, parse);
criterion_main!(benches);
