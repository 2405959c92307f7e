//! Things by a small number, so that an entry refers to its lane in four bytes.

use std::ops::{Index, IndexMut};

/// Keys are handed out by `insert` and stay valid until `remove`; a removed value lingers until its key is reused.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(key) = self.free.pop() {
            self.items[key as usize] = item;
            return key;
        }
        self.items.push(item);
        (self.items.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, key: u32) {
        self.free.push(key);
    }

    /// The keys of the values that `holds` is true of, removed ones that linger included.
    pub(super) fn keys_where(&self, holds: impl Fn(&T) -> bool) -> Vec<u32> {
        let found = self.items.iter().enumerate().filter(|(_, item)| holds(item));
        found.map(|(key, _)| key as u32).collect()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        &self.items[key as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        &mut self.items[key as usize]
    }
}
