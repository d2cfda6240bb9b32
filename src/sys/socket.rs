//! TCP sockets as the proxy uses them: listeners, accepted clients, and reads and writes that never block.
//!
//! O_NONBLOCK is set where a socket is born and never changed: it belongs to the open socket, which may be shared
//! with another process.

#![expect(
    unsafe_code,
    reason = "accept4, one socket option, and a buffer's spare capacity"
)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Seconds for which the kernel keeps a connection without bytes from us. Longer would hide silent clients from
/// every deadline.
const DEFER_ACCEPT_SECONDS: libc::c_int = 1;

/// What a read would find now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Bytes,
    Nothing,
    /// The peer has sent its FIN and everything before it has been read.
    End,
}

/// A listening socket. What it accepts inherits TCP_NODELAY.
pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // IPv4 has listeners of its own, so an address never shows up in two forms.
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    defer_accept(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// The address a socket is bound to; it names the port that `:0` became.
pub fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let address = SockRef::from(&fd).local_addr()?;
    address.as_socket().ok_or_else(not_an_internet_address)
}

/// One waiting connection, non-blocking and closed on exec; `None`: there is none.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the storage and its length are valid for the call, and the kernel writes an address of the length
    // it reports. A number that accept4 returns is open and owned by nobody else.
    let accepted = unsafe {
        SockAddr::try_init(|storage, length| {
            let number = libc::accept4(listener.as_raw_fd(), storage.cast(), length, flags);
            if number < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(OwnedFd::from_raw_fd(number))
            }
        })
    };
    match accepted {
        Ok((fd, address)) => {
            let peer = address.as_socket().ok_or_else(not_an_internet_address)?;
            Ok(Some((fd, peer)))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks at the first waiting octet and leaves it there.
pub fn has_bytes(fd: BorrowedFd<'_>) -> io::Result<Readiness> {
    let mut octet = [MaybeUninit::uninit()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    match SockRef::from(&fd).recv_with_flags(&mut octet, flags) {
        Ok(0) => Ok(Readiness::End),
        Ok(_) => Ok(Readiness::Bytes),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Readiness::Nothing),
        Err(error) => Err(error),
    }
}

/// Sends FIN, whoever else has a copy of the socket.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).shutdown(Shutdown::Write)
}

/// Ends the other direction: whoever reads sees the end of input.
pub fn shutdown_read(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).shutdown(Shutdown::Read)
}

/// Sends the last octets and the FIN, together if all of them fit: one segment less, and the peer wakes once. Less than
/// everything sent means that the connection has not been ended.
pub fn send_last(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // The kernel keeps what may be continued until the shutdown right after it.
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_MORE;
    let sent = SockRef::from(&fd).send_with_flags(bytes, flags)?;
    if sent == bytes.len() {
        shutdown_write(fd)?;
    }
    Ok(sent)
}

/// Sends, and lets the kernel know that more follows at once.
pub fn send_more(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_MORE;
    SockRef::from(&fd).send_with_flags(bytes, flags)
}

pub fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(&fd).send_with_flags(bytes, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

/// Sends several pieces in one call, so that a head and its body leave in one segment.
pub fn send_vectored(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(&fd).send_vectored_with_flags(pieces, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

/// Reads what is there. `Ok(0)`: the peer has ended its half.
pub fn recv_now(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: octets that are initialised may be written to as if they were not, and `recv` never writes an
    // uninitialised one.
    let buf = unsafe { &mut *(std::ptr::from_mut(buf) as *mut [MaybeUninit<u8>]) };
    SockRef::from(&fd).recv_with_flags(buf, libc::MSG_DONTWAIT)
}

/// Appends at most `max` octets to `buf` without clearing its spare capacity first. `Ok(0)`: the peer has ended.
pub fn recv_into_spare(fd: BorrowedFd<'_>, buf: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    buf.reserve(max);
    let spare = &mut buf.spare_capacity_mut()[..max];
    let count = SockRef::from(&fd).recv_with_flags(spare, libc::MSG_DONTWAIT)?;
    let length = buf.len() + count;
    // SAFETY: the kernel has initialised the first `count` octets of the spare capacity, and count <= max.
    unsafe { buf.set_len(length) };
    Ok(count)
}

/// While on, the end of this process (or a plain close) resets the connection instead of ending it in order. A
/// response that the close delimits must not look complete when its worker dies.
pub fn set_linger_reset(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    SockRef::from(&fd).set_linger(on.then_some(Duration::ZERO))
}

fn defer_accept(socket: &Socket) -> io::Result<()> {
    // SAFETY: the option takes a C int, and the pointer and length name one that lives through the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            std::ptr::from_ref(&DEFER_ACCEPT_SECONDS).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn not_an_internet_address() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an internet address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    fn connected() -> (TcpStream, OwnedFd) {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let mut client = TcpStream::connect(local_addr(listener.as_fd()).unwrap()).unwrap();
        client.write_all(b"abc").unwrap();
        loop {
            if let Some((fd, peer)) = accept(listener.as_fd()).unwrap() {
                assert_eq!(peer, client.local_addr().unwrap());
                return (client, fd);
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn accepted_sockets_peek_read_and_end() {
        let (mut client, server) = connected();
        let server = server.as_fd();
        assert_eq!(has_bytes(server).unwrap(), Readiness::Bytes);
        let mut buf = b"0".to_vec();
        assert_eq!(recv_into_spare(server, &mut buf, 2).unwrap(), 2);
        assert_eq!(buf, b"0ab");
        let mut rest = [0; 8];
        assert_eq!(recv_now(server, &mut rest).unwrap(), 1);
        assert_eq!(has_bytes(server).unwrap(), Readiness::Nothing);
        let blocked = recv_into_spare(server, &mut buf, 2).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(buf, b"0ab");
        assert!(SockRef::from(&server).tcp_nodelay().unwrap());

        let sent = send_vectored(server, &[IoSlice::new(b"he"), IoSlice::new(b"llo")]).unwrap();
        assert_eq!(sent, 5);
        shutdown_write(server).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        drop(client);
        let readiness = loop {
            match has_bytes(server).unwrap() {
                Readiness::Nothing => std::thread::yield_now(),
                other => break other,
            }
        };
        assert_eq!(readiness, Readiness::End);
    }

    #[test]
    fn the_last_octets_take_the_end_along() {
        let (mut client, server) = connected();
        let copy = server.try_clone().unwrap();
        assert_eq!(send_last(server.as_fd(), b"bye").unwrap(), 3);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        drop(copy);
    }

    #[test]
    fn a_reset_shows_as_an_error() {
        let (mut client, server) = connected();
        set_linger_reset(server.as_fd(), true).unwrap();
        drop(server);
        let mut buf = [0; 8];
        let error = client.read(&mut buf).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_taken_port_is_refused() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let address = local_addr(listener.as_fd()).unwrap();
        let error = listen(address, 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
