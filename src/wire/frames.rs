//! A stream between two processes of this program, in frames: a length of four octets (little-endian), a kind, content,
//! and perhaps a descriptor.
//!
//! What does not fit is an error, and the end of the stream between two frames is none. It knows no kinds but that of a
//! process that is too busy to listen.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Blocking;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::sys::fd::{recv_with_fds, send_with_fds};

/// Octets of one frame's content at most.
pub const MAX_FRAME: usize = 32 << 20;
/// Whom the stream was meant for is too busy to listen.
const BUSY: u8 = 127;
/// Of a kind: a descriptor comes with it.
const WITH_DESCRIPTOR: u8 = 0x80;
/// Octets read at once.
const PIECE: usize = 128 << 10;

/// One end of such a stream, of this event loop.
pub struct Frames {
    stream: UnixStream,
    /// What has come of the next frame, or more.
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    /// Descriptors that have come with it.
    descriptors: VecDeque<OwnedFd>,
}

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub content: Vec<u8>,
    /// None: it came without, or there was no room for one in this process.
    pub descriptor: Option<OwnedFd>,
}

impl Frames {
    /// One end for this process, one to be given away.
    pub fn pair() -> io::Result<(Frames, OwnedFd)> {
        let (near, far) = Blocking::pair()?;
        Ok((Frames::new(near.into())?, far.into()))
    }

    /// Takes over a connected stream socket.
    pub fn new(stream: OwnedFd) -> io::Result<Frames> {
        let stream = Blocking::from(stream);
        stream.set_nonblocking(true)?;
        Ok(Frames {
            stream: UnixStream::from_std(stream)?,
            buffer: Vec::new(),
            scratch: Vec::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// `kind`: below 127.
    pub async fn send(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        let head = head(kind, content)?;
        let mut parts = [io::IoSlice::new(&head), io::IoSlice::new(content)];
        let mut rest = parts.as_mut_slice();
        while !rest.is_empty() {
            match self.stream.write_vectored(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => io::IoSlice::advance_slices(&mut rest, written),
            }
        }
        Ok(())
    }

    /// A short frame with a copy of a descriptor.
    pub async fn send_with(
        &mut self,
        kind: u8,
        content: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut frame = head(kind | WITH_DESCRIPTOR, content)?.to_vec();
        frame.extend_from_slice(content);
        let fds = [descriptor.as_raw_fd()];
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            send_with_fds(self.stream.as_fd(), &frame, &fds)
        });
        let sent = sent.await?;
        self.stream
            .write_all(frame.get(sent..).unwrap_or_default())
            .await
    }

    /// The next frame; none at the end of the stream. May be given up and called again. Error `ResourceBusy`: turned away.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.read().await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Waits until the other side has ended the stream, and takes nothing from it.
    pub async fn closed(&self) {
        let mut octet = [0];
        loop {
            let waited = self.stream.ready(tokio::io::Interest::READABLE).await;
            let is_over = match waited {
                Ok(ready) if ready.is_read_closed() => true,
                Ok(_) => matches!(self.stream.try_read(&mut octet), Ok(0)),
                Err(_) => true,
            };
            if is_over {
                return;
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            // Not one octet is taken unless all that follows is done, so the wait may be given up.
            let (stream, scratch) = (&self.stream, &mut self.scratch);
            scratch.resize(PIECE, 0);
            let mut fds = Vec::new();
            let read = stream.try_io(Interest::READABLE, || {
                recv_with_fds(stream.as_fd(), scratch, &mut fds)
            });
            self.descriptors.extend(fds);
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    let octets = scratch.get(..read).unwrap_or_default();
                    self.buffer.extend_from_slice(octets);
                    return Ok(read);
                }
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Frame>> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let (length, kind) = read_head(*head)?;
        let Some(content) = rest.get(..length) else {
            self.buffer.reserve(5 + length - self.buffer.len());
            return Ok(None);
        };
        let content = content.to_vec();
        self.buffer.drain(..5 + length);
        let descriptor = match kind & WITH_DESCRIPTOR {
            0 => None,
            _ => self.descriptors.pop_front(),
        };
        Ok(Some(Frame {
            kind: kind & !WITH_DESCRIPTOR,
            content,
            descriptor,
        }))
    }
}

/// Tells whoever has the other end that nobody listens now, and may later.
pub fn turn_away(stream: OwnedFd) {
    // A stream that nobody has written to has room for it.
    let said = head(BUSY, b"").and_then(|head| send_with_fds(stream.as_fd(), &head, &[]));
    if let Err(error) = said {
        log::debug!("a process cannot be turned away: {error}");
    }
}

/// What goes before the content.
pub(super) fn head(kind: u8, content: &[u8]) -> io::Result<[u8; 5]> {
    let length = u32::try_from(content.len()).ok();
    let length = length.filter(|_| content.len() <= MAX_FRAME);
    let length = length.ok_or_else(|| invalid("a frame that is too long"))?;
    let [a, b, c, d] = length.to_le_bytes();
    Ok([a, b, c, d, kind])
}

/// The length of the content, and the kind.
pub(super) fn read_head([a, b, c, d, kind]: [u8; 5]) -> io::Result<(usize, u8)> {
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    match kind {
        BUSY => Err(io::ErrorKind::ResourceBusy.into()),
        _ if length > MAX_FRAME => Err(invalid("a frame that is too long")),
        _ => Ok((length, kind)),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_is_told_so() {
        run(async {
            let (mut near, far) = Frames::pair().unwrap();
            turn_away(far);
            let told = near.next().await.unwrap_err();
            assert_eq!(told.kind(), io::ErrorKind::ResourceBusy);
        });
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn frames_come_as_they_were_sent_and_the_end_behind_them() {
        run(async {
            let (mut near, far) = Frames::pair().unwrap();
            let mut far = Frames::new(far).unwrap();
            let large = vec![7; 3 << 20];
            let send = async {
                near.send(1, b"").await.unwrap();
                near.send(2, &large).await.unwrap();
                near.send(3, b"last").await.unwrap();
                drop(near);
            };
            let receive = async {
                let mut frames = Vec::new();
                while let Some(frame) = far.next().await.unwrap() {
                    frames.push((frame.kind, frame.content.len()));
                }
                frames
            };
            let (_, frames) = tokio::join!(send, receive);
            assert_eq!(frames, [(1, 0), (2, 3 << 20), (3, 4)]);
            far.closed().await;
        });
    }

    #[test]
    fn a_descriptor_comes_with_its_frame() {
        run(async {
            let (mut near, far) = Frames::pair().unwrap();
            let mut far = Frames::new(far).unwrap();
            let (given, other) = Blocking::pair().unwrap();
            near.send(1, b"before").await.unwrap();
            near.send_with(2, b"with", given.as_fd()).await.unwrap();
            near.send(3, b"after").await.unwrap();
            drop(given);
            let mut frames = Vec::new();
            for _ in 0..3 {
                frames.push(far.next().await.unwrap().unwrap());
            }
            let kinds = frames
                .iter()
                .map(|frame| (frame.kind, frame.descriptor.is_some()));
            assert_eq!(
                kinds.collect::<Vec<_>>(),
                [(1, false), (2, true), (3, false)]
            );
            let taken = Blocking::from(frames.remove(1).descriptor.unwrap());
            io::Write::write_all(&mut &taken, b"x").unwrap();
            io::Read::read_exact(&mut &other, &mut [0]).unwrap();
        });
    }

    #[test]
    fn a_frame_that_ends_early_or_is_too_long_is_an_error() {
        run(async {
            for octets in [&[4, 0, 0, 0, 1, 9][..], &[255, 255, 255, 255, 1], &[1]] {
                let (near, far) = Blocking::pair().unwrap();
                io::Write::write_all(&mut &near, octets).unwrap();
                drop(near);
                assert!(Frames::new(far.into()).unwrap().next().await.is_err());
            }
        });
    }
}
