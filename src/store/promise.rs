//! What is known of an object while its body arrives, whatever store it is for.

use crate::cache::{Part, Stored};

/// Fields that are there, and a length that may be known.
pub struct Promise {
    /// Taken when the object is made.
    stored: Option<Stored>,
    expected: Option<u64>,
    replaces: bool,
}

impl Promise {
    /// `expected`: octets of the body, where that is known.
    pub fn new(stored: Stored, expected: Option<u64>) -> Promise {
        Promise {
            stored: Some(stored),
            expected,
            replaces: false,
        }
    }

    pub fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// The fields, for the object itself.
    pub fn take_stored(&mut self) -> Option<Stored> {
        self.stored.take()
    }

    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Whether a body of that length is what was promised.
    pub fn is_kept_by(&self, length: u64) -> bool {
        self.expected.is_none_or(|expected| expected == length)
    }

    /// Whether it takes the place of something older.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    pub fn replace(&mut self) {
        self.replaces = true;
    }

    /// What comes is this part of a representation, however long it was expected to be.
    pub fn keep_as(&mut self, part: Part) {
        self.expected = None;
        if let Some(stored) = &mut self.stored {
            stored.keep_as(part);
        }
    }
}
