pub mod format;
pub mod place;
pub mod read;
