//! The short name of the process, as `top` and `/proc/PID/comm` show it. A process that was started through
//! `/proc/self/exe` would otherwise be called `exe`. (What `ps` shows is the title, set at spawn.)

/// Names this process `baton`. A kernel that refuses costs only the name.
pub fn set() {
    let _ = nix::sys::prctl::set_name(c"baton");
}
