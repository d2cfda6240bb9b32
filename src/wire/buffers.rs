//! Buffers of this thread, lent to whoever is moving octets now.
//!
//! An idle connection owns none. There are two sizes, each kept in small number; others are freed.

use std::cell::RefCell;

/// Octets read at once from a client, or of what is known to be short.
pub const ORDINARY: usize = 16 * 1024;
/// Octets read at once of a response, or of a large body.
pub const LARGE: usize = 256 * 1024;
/// Buffers of each size kept for the next user. Of a large one, only the part that was ever used takes memory.
const KEPT_ORDINARY: usize = 64;
const KEPT_LARGE: usize = 64;

#[derive(Default)]
struct Free {
    ordinary: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

thread_local! {
    static FREE: RefCell<Free> = RefCell::default();
}

/// An empty buffer of the ordinary capacity.
pub fn take() -> Vec<u8> {
    FREE.with_borrow_mut(|free| free.ordinary.pop())
        .unwrap_or_else(|| Vec::with_capacity(ORDINARY))
}

/// An empty buffer for large bodies.
pub fn take_large() -> Vec<u8> {
    FREE.with_borrow_mut(|free| free.large.pop())
        .unwrap_or_else(|| Vec::with_capacity(LARGE))
}

/// Frees what is kept for the next users.
pub fn free_all() {
    FREE.with_borrow_mut(|free| *free = Free::default());
}

/// Gives a buffer back and leaves an empty one without memory in its place.
pub fn give(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    // At the end of a thread the list may be gone already: then the buffer is freed.
    let _ = FREE.try_with(|free| {
        let Ok(mut free) = free.try_borrow_mut() else {
            return;
        };
        let (list, kept) = match buffer.capacity() {
            ORDINARY..LARGE if buffer.capacity() <= 2 * ORDINARY => {
                (&mut free.ordinary, KEPT_ORDINARY)
            }
            LARGE.. if buffer.capacity() <= 2 * LARGE => (&mut free.large, KEPT_LARGE),
            _ => return,
        };
        if list.len() < kept {
            list.push(buffer);
        }
    });
}
