//! A plain socket of this worker.
//!
//! Every operation tries the system call first and registers with the runtime only when it has to wait, so a
//! connection that is served and closed at once never costs a registration. It refuses to buffer: callers own
//! the buffers. The descriptor can leave (`into_fd`), deregistered, for the master or for another process.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFdReadyGuard;

use super::{Broken, Pace};
use crate::sys::files;
use crate::sys::socket::{self, Readiness};
use crate::sys::watched::Watched;

pub struct Stream {
    fd: Watched,
}

impl Stream {
    /// Takes a connected, non-blocking socket.
    pub fn new(fd: OwnedFd) -> Stream {
        Stream {
            fd: Watched::new(fd),
        }
    }

    /// The descriptor, deregistered.
    pub fn into_fd(self) -> OwnedFd {
        self.fd.into_fd()
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads at most `max` octets onto the end of `buffer` if some are there now; `WouldBlock` if not; 0 at the end.
    pub fn try_read(&self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        retry(|| socket::recv_into_spare(self.fd.as_fd(), buffer, max))
    }

    /// Reads at most `max` octets onto the end of `buffer`, waiting for the first; 0 at the end of input.
    pub async fn read(&self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        if !self.fd.is_registered() {
            match self.try_read(buffer, max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        loop {
            let mut guard = self.fd.registration()?.readable().await?;
            match self.try_read(buffer, max) {
                // A short read emptied the socket: waiting for the next edge saves the call that would say so.
                // An end of input already seen stays set in the runtime's readiness.
                Ok(read) => {
                    if read < max {
                        guard.clear_ready();
                    }
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing has arrived that was not read, the end of input included.
    pub fn is_quiet(&self) -> bool {
        // The event loop's readiness would spare the call, and miss what came since the loop looked.
        matches!(socket::has_bytes(self.as_fd()), Ok(Readiness::Nothing))
    }

    /// Waits until a read would not block; a reader that finds nothing says so to what is returned.
    pub async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, RawFd>> {
        self.fd.registration()?.readable().await
    }

    /// The same for the one task that reads the connection, at less cost; a second one that waited so would take the
    /// first one's place.
    pub async fn readable_alone(&self) -> io::Result<AsyncFdReadyGuard<'_, RawFd>> {
        let registration = self.fd.registration()?;
        std::future::poll_fn(|task| registration.poll_read_ready(task)).await
    }

    /// Waits until the peer has reset the connection. An end of input is none: whoever has shut one direction may
    /// still read.
    pub async fn reset(&self) -> io::Result<()> {
        let ready = self.fd.registration()?.ready(Interest::ERROR).await;
        ready.map(drop)
    }

    /// Writes what the kernel takes now of `parts`; `WouldBlock` if nothing.
    pub fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            [one] => retry(|| socket::send_now(self.fd.as_fd(), one)),
            many => retry(|| socket::send_vectored(self.fd.as_fd(), many)),
        }
    }

    /// Writes something of `parts`, waiting for room.
    async fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.try_write(parts) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        loop {
            let mut guard = self.fd.registration()?.writable().await?;
            match self.try_write(parts) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                done => return done,
            }
        }
    }

    /// Writes all of `octets`, waiting as long as it takes.
    pub async fn write_all(&self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            let written = self.write(&[IoSlice::new(octets)]).await?;
            octets = octets.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads onto `buffer` like `read`, at the pace that `pace` demands.
    pub async fn read_paced(
        &self,
        buffer: &mut Vec<u8>,
        max: usize,
        pace: &mut Pace,
    ) -> Result<usize, Broken> {
        if !self.fd.is_registered() {
            match self.try_read(buffer, max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done.map_err(Broken::Io).inspect(|read| pace.moved(*read)),
            }
        }
        let read = pace.keep(self.read(buffer, max)).await??;
        pace.moved(read);
        Ok(read)
    }

    /// Writes all of `parts`, in order, at the pace that `pace` demands.
    pub async fn write_paced(
        &self,
        parts: &mut [IoSlice<'_>],
        pace: &mut Pace,
    ) -> Result<(), Broken> {
        let mut rest = parts;
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = self.write_some_paced(rest, pace).await?;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    /// Writes something of `parts` at the pace that `pace` demands, and says how much.
    pub async fn write_some_paced(
        &self,
        parts: &[IoSlice<'_>],
        pace: &mut Pace,
    ) -> Result<usize, Broken> {
        let written = match self.try_write(parts) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pace.keep(self.write(parts)).await??
            }
            done => done?,
        };
        if written == 0 {
            return Err(Broken::Io(io::ErrorKind::WriteZero.into()));
        }
        pace.moved(written);
        Ok(written)
    }

    /// Writes what the kernel takes now of `octets`, behind which a file follows at once.
    pub fn try_write_before_file(&self, octets: &[u8]) -> io::Result<usize> {
        retry(|| socket::send_more(self.fd.as_fd(), octets))
    }

    /// Lets the kernel send what it takes now of those octets of `file`.
    pub fn try_send_file(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize> {
        retry(|| files::send(self.fd.as_fd(), file, offset, count))
    }

    /// Writes all of `octets`, behind which a file follows at once.
    pub async fn write_before_file(
        &self,
        mut octets: &[u8],
        pace: &mut Pace,
    ) -> Result<(), Broken> {
        while !octets.is_empty() {
            let send = || socket::send_more(self.fd.as_fd(), octets);
            let written = self.put_paced(send, pace).await?;
            octets = octets.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Lets the kernel send octets of `file`, from `offset` on; how many it took. 0: the file ends there.
    pub async fn send_file(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
        pace: &mut Pace,
    ) -> Result<usize, Broken> {
        let send = || files::send(self.fd.as_fd(), file, offset, count);
        self.put_paced(send, pace).await
    }

    /// Does what writes something, as soon as there is room.
    async fn put_paced(
        &self,
        put: impl Fn() -> io::Result<usize>,
        pace: &mut Pace,
    ) -> Result<usize, Broken> {
        let written = match retry(&put) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pace.keep(self.put_when_writable(&put)).await??
            }
            done => done?,
        };
        pace.moved(written);
        Ok(written)
    }

    async fn put_when_writable(&self, put: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            let mut guard = self.fd.registration()?.writable().await?;
            match retry(&put) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                done => return done,
            }
        }
    }

    /// Waits until a connect that was begun has ended, and says how.
    pub async fn connected(&self) -> io::Result<()> {
        let _guard = self.fd.registration()?.writable().await?;
        match socket2::SockRef::from(&self.fd).take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Writes what the kernel takes now of the connection's last octets; with all of them goes the end.
    pub fn try_write_last(&self, octets: &[u8]) -> io::Result<usize> {
        retry(|| socket::send_last(self.fd.as_fd(), octets))
    }

    /// Ends our direction. A copy of the descriptor elsewhere would suppress the FIN of a mere close.
    pub fn shutdown_write(&self) {
        let _ = socket::shutdown_write(self.fd.as_fd());
    }

    /// From here on, death of this process resets the connection (`true`) or ends it in order (`false`).
    pub fn reset_on_death(&self, on: bool) {
        let _ = socket::set_linger_reset(self.fd.as_fd(), on);
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
