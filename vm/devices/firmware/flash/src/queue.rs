//! The queue of changes to be stored.

use crate::BLOCK_SIZE;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

/// The content of a block.
pub(crate) type Block = Box<[u8; BLOCK_SIZE]>;

/// Blocks that change together. A step of more than one block results from merging steps, either because there were
/// too many or because the storage replaces the whole image atomically.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The changed blocks by index.
    pub(crate) blocks: BTreeMap<usize, Block>,
    /// The number of the last change in the step.
    pub(crate) last_change: u64,
}

/// Steps in the order in which the guest made the changes.
///
/// Consecutive changes of one block are one step with the content after the last of them. The content after any number
/// of steps is therefore one that the chip had at some time.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    steps: VecDeque<Step>,
    changes: u64,
}

impl Queue {
    /// Adds a change of block `index`: `current` fills in its previous content, and `apply` changes it.
    pub(crate) fn change(
        &mut self,
        index: usize,
        current: impl FnOnce(&mut [u8; BLOCK_SIZE]),
        apply: impl FnOnce(&mut [u8; BLOCK_SIZE]),
    ) {
        self.changes += 1;
        if let Some(step) = self.steps.back_mut()
            && step.blocks.len() == 1
            && let Some(block) = step.blocks.get_mut(&index)
        {
            apply(block);
            step.last_change = self.changes;
            return;
        }
        let mut block = Box::new([0; BLOCK_SIZE]);
        current(&mut block);
        apply(&mut block);
        self.push(BTreeMap::from([(index, block)]));
    }

    /// Adds a change of several blocks at once.
    pub(crate) fn change_together(&mut self, blocks: BTreeMap<usize, Block>) {
        if !blocks.is_empty() {
            self.changes += 1;
            self.push(blocks);
        }
    }

    fn push(&mut self, blocks: BTreeMap<usize, Block>) {
        self.steps.push_back(Step {
            blocks,
            last_change: self.changes,
        });
    }

    /// Merges all steps into one.
    pub(crate) fn merge(&mut self) {
        let mut steps = self.steps.drain(..);
        if let Some(mut all) = steps.next() {
            for later in steps {
                all.blocks.extend(later.blocks);
                all.last_change = later.last_change;
            }
            self.steps.push_back(all);
        }
    }

    pub(crate) fn take_first(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Puts back a step that was taken and could not be stored.
    pub(crate) fn put_back(&mut self, step: Step) {
        self.steps.push_front(step);
    }

    /// The number of steps.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The number of all changes so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The number of blocks that the steps change.
    pub(crate) fn blocks(&self) -> usize {
        let blocks = self.steps.iter().flat_map(|step| step.blocks.keys());
        blocks.collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(queue: &mut Queue, index: usize, at: usize, value: u8) {
        queue.change(index, |block| block.fill(0xff), |block| block[at] = value);
    }

    #[test]
    fn consecutive_changes_of_one_block_are_one_step() {
        let mut queue = Queue::default();
        write(&mut queue, 3, 0, 1);
        write(&mut queue, 3, 1, 2);
        write(&mut queue, 4, 0, 3);
        write(&mut queue, 3, 2, 4);
        assert_eq!((queue.len(), queue.blocks(), queue.changes()), (3, 2, 4));
        let first = queue.take_first().unwrap();
        assert_eq!(first.last_change, 2);
        assert_eq!(first.blocks[&3][..3], [1, 2, 0xff]);
        assert_eq!(queue.take_first().unwrap().last_change, 3);
        queue.put_back(first);
        // The last step can still be extended.
        write(&mut queue, 3, 3, 5);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn merged_steps_have_the_latest_content_of_each_block() {
        let mut queue = Queue::default();
        queue.merge();
        assert!(queue.is_empty());
        for round in 0..3 {
            write(&mut queue, 1, 0, round);
            write(&mut queue, 2, 0, round + 10);
        }
        queue.merge();
        assert_eq!(queue.len(), 1);
        // A merged step is not extended, which could delay it forever.
        write(&mut queue, 1, 0, 99);
        let all = queue.take_first().unwrap();
        assert_eq!((all.blocks[&1][0], all.blocks[&2][0]), (2, 12));
        assert_eq!(all.last_change, 6);
        assert_eq!(queue.take_first().unwrap().blocks[&1][0], 99);
        queue.change_together(BTreeMap::new());
        assert!(queue.is_empty());
    }
}
