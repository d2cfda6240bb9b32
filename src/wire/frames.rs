//! A stream between two processes of this program, in frames: a length of four octets (little-endian), a kind, content.
//!
//! What does not fit is an error, and the end of the stream between two frames is none. It knows no kinds.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Blocking;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Octets of one frame's content at most.
pub const MAX_FRAME: usize = 32 << 20;

/// One end of such a stream, of this event loop.
pub struct Frames {
    stream: UnixStream,
    /// Between two reads: what has come of the next frame, or more.
    buffer: Vec<u8>,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub content: Vec<u8>,
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
        })
    }

    pub async fn send(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).ok();
        let length = length.filter(|_| content.len() <= MAX_FRAME);
        let length = length.ok_or_else(|| invalid("a frame that is too long"))?;
        let mut head = [0; 5];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4] = kind;
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

    /// The next frame; none at the end of the stream. May be given up and called again.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
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

    fn take(&mut self) -> io::Result<Option<Frame>> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [a, b, c, d, kind] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME {
            return Err(invalid("a frame that is too long"));
        }
        let Some(content) = rest.get(..length) else {
            self.buffer.reserve(5 + length - self.buffer.len());
            return Ok(None);
        };
        let content = content.to_vec();
        self.buffer.drain(..5 + length);
        Ok(Some(Frame { kind, content }))
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

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
