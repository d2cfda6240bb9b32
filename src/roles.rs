//! Which process this is: each role and its entry.
