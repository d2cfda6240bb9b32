//! What a memory store has, told to whoever asks about it. It counts as no use.

use std::rc::Rc;

use super::Hot;
use crate::cache::Key;
use crate::store::asked::Sum;
use crate::store::{Coherence, Object, Store};

impl<C: Coherence> Hot<C> {
    /// Everything that is kept under the key and is current, the newest first.
    pub fn current(&self, key: &[u8]) -> Vec<Rc<Object>> {
        let current = self.inner.settle(key);
        let entries = self.inner.entries.borrow();
        let variants = entries.peek(key).into_iter().flatten().rev();
        let current = variants.filter(|kept| kept.version == current);
        current.map(|kept| kept.object.clone()).collect()
    }

    pub fn keys(&self) -> Vec<Key> {
        let entries = self.inner.entries.borrow();
        entries.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Of what is current.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum {
            size: self.weight(),
            ..Sum::default()
        };
        let entries = self.inner.entries.borrow();
        for (key, variants) in entries.iter() {
            let version = self.version(key.as_bytes());
            let current = variants.iter().filter(|kept| kept.version == version);
            let before = sum.responses;
            for kept in current {
                sum.responses += 1;
                sum.content += kept.object.stored.body_len;
            }
            sum.keys += u64::from(sum.responses > before);
        }
        sum
    }

    /// Forgets what is not current any more: it is dead already, and takes memory until it is asked for.
    pub fn forget_outdated(&self) {
        for key in self.keys() {
            self.inner.settle(key.as_bytes());
        }
    }
}
