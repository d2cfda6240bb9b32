//! The priority of a thread.

#![expect(unsafe_code, reason = "system calls that no crate wraps")]

/// From now on this thread, when it is woken, waits until whoever woke it has to wait: it gets its share of the time, but
/// not in the middle of another's work. A kernel that refuses costs a change of threads.
pub fn never_interrupt() {
    const OURSELVES: libc::pid_t = 0;
    // SAFETY: sched_param is a plain number; the call reads it and keeps nothing.
    unsafe {
        let none: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(OURSELVES, libc::SCHED_BATCH, &none);
    }
}

/// From now on this thread runs, and reads from the disk, when nobody else wants to. A kernel that refuses costs others
/// a little of their time.
pub fn yield_to_others() {
    const WHO_THREAD: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    const NICEST: libc::c_int = 19;
    // SAFETY: numbers in, numbers out; 0 is the calling thread (Linux counts niceness by thread).
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICEST);
        libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, CLASS_IDLE);
    }
}
