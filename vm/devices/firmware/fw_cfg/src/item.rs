//! The items of a device.

use crate::content::ItemContent;
use crate::selector;
use std::collections::BTreeMap;

/// Called with the content of a writable item when that has changed.
pub(crate) type OnWrite = Box<dyn FnMut(&[u8]) + Send>;

/// Makes the content of an item when the guest asks for it.
pub(crate) type MakeContent = Box<dyn FnMut() -> Option<Vec<u8>> + Send>;

pub(crate) struct StoredItem {
    /// The name of a file in the directory.
    pub(crate) name: Option<String>,
    /// The content. For a writable item, the initial content.
    pub(crate) content: ItemContent,
    pub(crate) writable: Option<Writable>,
    pub(crate) made: Option<Made>,
}

/// What makes the content of an item when the guest selects it.
pub(crate) struct Made {
    pub(crate) make: MakeContent,
    /// Whether it was made since the last reset.
    pub(crate) done: bool,
}

/// The current content of a writable item.
pub(crate) struct Writable {
    pub(crate) bytes: Vec<u8>,
    pub(crate) on_write: OnWrite,
}

impl Writable {
    /// Replaces the content by one of the same length.
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

    /// The guest selects the item: makes its content, unless that was made since the last reset.
    pub(crate) fn select(&mut self) {
        let Some(made) = self.made.as_mut().filter(|made| !made.done) else {
            return;
        };
        made.done = true;
        let Some(bytes) = (made.make)() else { return };
        let (len, expected) = (bytes.len() as u64, self.content.len());
        if len == expected {
            self.content = bytes.into();
        } else {
            // The directory has told the guest another length.
            tracing::error!(
                name = self.name,
                len,
                expected,
                "a fw_cfg file was made with another length"
            );
        }
    }

    /// The current content, if it is in memory.
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.writable {
            Some(writable) => Some(&writable.bytes),
            None => self.content.as_bytes(),
        }
    }
}

/// The items by selector.
#[derive(Default)]
pub(crate) struct Items(pub(crate) BTreeMap<u16, StoredItem>);

impl Items {
    pub(crate) fn get(&self, selector: u16) -> Option<&StoredItem> {
        self.0.get(&selector)
    }

    pub(crate) fn get_mut(&mut self, selector: u16) -> Option<&mut StoredItem> {
        self.0.get_mut(&selector)
    }

    /// The content of the directory: the number of files, and 64 bytes for each.
    pub(crate) fn directory(&self) -> Vec<u8> {
        let files = self.0.range(selector::FIRST_FILE..);
        let files: Vec<_> = files
            .filter_map(|(selector, item)| Some((*selector, item.name.as_ref()?, item.len())))
            .collect();
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (selector, name, len) in files {
            // The builder has checked the length and the name.
            directory.extend((len as u32).to_be_bytes());
            directory.extend(selector.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = [0; 56];
            field[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend(field);
        }
        directory
    }
}
