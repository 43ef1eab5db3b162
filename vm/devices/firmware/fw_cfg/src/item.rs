//! The items of a device.

use crate::content::Content;
use crate::selector;
use std::collections::BTreeMap;

/// What is called with the content of a writable item when that has changed.
pub(crate) type OnWrite = Box<dyn FnMut(&[u8]) + Send>;
/// What is called when the guest selects an item.
pub(crate) type OnSelect = Box<dyn FnMut() + Send>;

/// One item, as the guest sees it.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// The number by which the guest selects it.
    pub selector: u16,
    /// The name of a file in the directory.
    pub name: Option<&'a str>,
    /// Whether the guest can change it.
    pub writable: bool,
    /// What it holds. For a writable item, what it held at first.
    pub content: &'a Content,
}

pub(crate) struct StoredItem {
    pub(crate) name: Option<String>,
    pub(crate) content: Content,
    pub(crate) writable: Option<Writable>,
    pub(crate) on_select: Option<OnSelect>,
}

/// What the guest has made of an item that it can change.
pub(crate) struct Writable {
    pub(crate) bytes: Vec<u8>,
    pub(crate) on_write: OnWrite,
}

impl Writable {
    /// Replaces all of the content, which keeps its length.
    pub(crate) fn set(&mut self, bytes: Vec<u8>) {
        if self.bytes != bytes {
            self.bytes = bytes;
            (self.on_write)(&self.bytes);
        }
    }
}

impl StoredItem {
    pub(crate) fn len(&self) -> u64 {
        self.content.len()
    }

    /// The bytes as the guest sees them now, if they are in memory.
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.writable {
            Some(writable) => Some(&writable.bytes),
            None => self.content.as_bytes(),
        }
    }
}

/// The items by number.
#[derive(Default)]
pub(crate) struct Items(pub(crate) BTreeMap<u16, StoredItem>);

impl Items {
    pub(crate) fn get(&self, number: u16) -> Option<&StoredItem> {
        self.0.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u16) -> Option<&mut StoredItem> {
        self.0.get_mut(&number)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        self.0.iter().map(|(number, item)| Item {
            selector: *number,
            name: item.name.as_deref(),
            writable: item.writable.is_some(),
            content: &item.content,
        })
    }

    /// The directory of the files: their count, and 64 bytes for each.
    pub(crate) fn directory(&self) -> Vec<u8> {
        let files = self.0.range(selector::FIRST_FILE..);
        let files: Vec<_> = files
            .filter_map(|(number, item)| Some((*number, item.name.as_ref()?, item.len())))
            .collect();
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (number, name, len) in files {
            // The builder has checked that both fit.
            directory.extend((len as u32).to_be_bytes());
            directory.extend(number.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = [0; 56];
            field[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend(field);
        }
        directory
    }
}
