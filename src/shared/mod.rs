//! What processes share.

/// What a key's version slot and the global epoch held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    pub slot: u64,
    pub epoch: u64,
}
