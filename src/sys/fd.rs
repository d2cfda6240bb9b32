//! Descriptors across processes: a pair of message sockets, and messages that carry descriptors.
//!
//! A SEQPACKET pair keeps the boundaries of messages and, unlike a datagram pair, reports the peer's death as an
//! end of file. What arrives is owned and closed on exec from its first moment. Descriptors that the
//! kernel could not deliver are missing without a word: the caller compares with the count in its message.

#![expect(
    unsafe_code,
    reason = "recvmsg, and descriptor numbers that become owned descriptors"
)]

use std::fs::File;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use sendfd::SendWithFd;
use socket2::SockRef;

/// Room for descriptors in one receive. A smaller room would lose the rest silently, so it is more than any
/// message of ours may carry.
pub const MAX_RECEIVED: usize = 64;

/// Octets that may wait in one direction of a pair; the kernel doubles it, and may grant less.
const CHANNEL_BUFFER: usize = 256 * 1024;

/// Two ends of a message channel: non-blocking, closed on exec.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    for end in [&near, &far] {
        SockRef::from(end).set_send_buffer_size(CHANNEL_BUFFER)?;
    }
    Ok((near, far))
}

/// Sends one message with copies of `fds`; the caller's own stay open.
pub fn send_with_fds(sock: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    as_datagram(sock).send_with_fd(bytes, fds)
}

/// Octets of control data that hold the most descriptors.
// SAFETY: it only computes a length.
const CONTROL: usize =
    unsafe { libc::CMSG_SPACE((MAX_RECEIVED * size_of::<RawFd>()) as u32) } as usize;

/// Control data as the kernel wants it: aligned for its headers.
#[repr(C)]
union Control {
    _header: libc::cmsghdr,
    octets: [MaybeUninit<u8>; CONTROL],
}

/// Receives one message into `buf` and appends its descriptors, closed on exec from the start. `Ok(0)`: the peer is gone.
///
/// By hand, since sendfd leaves them open on exec, which costs a call for each to mend, and nix hands out none of
/// them (and so leaks them) when some did not fit below the descriptor limit.
pub fn recv_with_fds(
    sock: BorrowedFd<'_>,
    buf: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = Control {
        octets: [MaybeUninit::uninit(); CONTROL],
    };
    let mut part = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: a C structure of numbers and pointers, for which zero means none.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: every pointer in the message leads to memory that is valid for the length beside it, and outlives the call.
    let received = unsafe { libc::recvmsg(sock.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    let octets = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written as much of `control` as it says in the message; the macros stay within that.
    // Numbers of SCM_RIGHTS have just been opened for this message; nobody else owns them.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(found) = header.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let octets = found.cmsg_len - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
                fds.extend(
                    (0..octets / size_of::<RawFd>())
                        .map(|index| OwnedFd::from_raw_fd(numbers.add(index).read_unaligned())),
                );
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    Ok(octets)
}

/// Whether the descriptor closes when this process executes another program.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on {
        FdFlag::FD_CLOEXEC
    } else {
        FdFlag::empty()
    };
    fcntl(fd, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Sets O_NONBLOCK, for a descriptor that this process did not open itself.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_nonblocking(true)
}

/// Takes over the descriptor number that a parent left open for this process, and has it closed on exec again.
///
/// `None`: no such descriptor. Call it once for a number, before anything else is opened.
#[must_use]
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: the number is only used to ask whether it is open; the answer decides whether it is kept.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    set_cloexec(borrowed, true).ok()?;
    // SAFETY: it is open, and by this function's contract nobody else in this process has taken it over.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes what a parent handed over as standard input, closed on exec, and leaves nothing to read in its place.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(taken)
}

/// sendfd speaks to std's types only; this lends it ours for one call.
fn as_datagram(sock: BorrowedFd<'_>) -> ManuallyDrop<UnixDatagram> {
    // SAFETY: the number is open for as long as `sock` lives, and ManuallyDrop never closes it.
    ManuallyDrop::new(unsafe { UnixDatagram::from_raw_fd(sock.as_raw_fd()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_message_keeps_its_boundaries_and_its_descriptors() {
        let (near, far) = seqpacket_pair().unwrap();
        let (mut kept, sent) = UnixStream::pair().unwrap();
        send_with_fds(near.as_fd(), b"one", &[sent.as_raw_fd()]).unwrap();
        send_with_fds(near.as_fd(), b"two!", &[]).unwrap();
        drop(sent);

        let mut buf = [0; 64];
        let mut fds = Vec::new();
        assert_eq!(recv_with_fds(far.as_fd(), &mut buf, &mut fds).unwrap(), 3);
        assert_eq!(fds.len(), 1);
        let flags = fcntl(&fds[0], FcntlArg::F_GETFD).unwrap();
        assert_eq!(FdFlag::from_bits_retain(flags), FdFlag::FD_CLOEXEC);

        kept.write_all(b"hi").unwrap();
        let mut stream = UnixStream::from(fds.pop().unwrap());
        let mut text = [0; 2];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hi");

        assert_eq!(recv_with_fds(far.as_fd(), &mut buf, &mut fds).unwrap(), 4);
        assert!(fds.is_empty());
        let blocked = recv_with_fds(far.as_fd(), &mut buf, &mut fds).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        drop(near);
        assert_eq!(recv_with_fds(far.as_fd(), &mut buf, &mut fds).unwrap(), 0);
    }

    #[test]
    fn a_full_channel_refuses_without_blocking() {
        let (near, _far) = seqpacket_pair().unwrap();
        let message = [0; 4096];
        let error = loop {
            if let Err(error) = send_with_fds(near.as_fd(), &message, &[]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
