//! The frames of `frames`, without descriptors, for a thread that may wait: the control process asks workers with them.
//!
//! How long it waits is the stream's own timeout.

use std::io::{self, IoSlice, Read, Write};

use super::frames::{self, Frame};

pub fn send(stream: &mut impl Write, kind: u8, content: &[u8]) -> io::Result<()> {
    let head = frames::head(kind, content)?;
    let mut parts = [IoSlice::new(&head), IoSlice::new(content)];
    let mut rest = parts.as_mut_slice();
    while !rest.is_empty() {
        match stream.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The next frame. `UnexpectedEof`: the other side has ended the stream.
pub fn next(stream: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let (length, kind) = frames::read_head(head)?;
    let mut content = vec![0; length];
    stream.read_exact(&mut content)?;
    Ok(Frame {
        kind,
        content,
        descriptor: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frames;

    #[test]
    fn a_thread_and_an_event_loop_understand_each_other() {
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let echo = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let mut frames = Frames::new(far.into()).unwrap();
                while let Some(frame) = frames.next().await.unwrap() {
                    frames.send(frame.kind + 1, &frame.content).await.unwrap();
                }
            });
        });
        for length in [0, 5, 3 << 20] {
            let content = vec![7; length];
            let mut copy = near.try_clone().unwrap();
            let sent = content.clone();
            let sending = std::thread::spawn(move || send(&mut copy, 4, &sent).unwrap());
            let frame = next(&mut near).unwrap();
            assert!(frame.kind == 5 && frame.content == content);
            sending.join().unwrap();
        }
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let end = next(&mut near).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        echo.join().unwrap();
    }
}
