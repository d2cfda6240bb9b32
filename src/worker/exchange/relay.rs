//! A response's body on its way from the origin server's connection to the client's, and into the store.
//!
//! It stops between two octets once somebody else waits for the same response: then `share` lets it come for all, and
//! this client reads on from where it is (`Onward::follow`). It never completes a body that ended early.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::deliver::{COPIED, End, client_end};
use super::fetch::{Lost, Prefix};
use super::recording::Recording;
use super::request_body::gone;
use super::share;
use crate::http::body::{Decoder, Encoder};
use crate::http::framing::Framing;
use crate::store::{Growing, Read};
use crate::sys::files::{self, Access};
use crate::upstream::client::Link;
use crate::wire::{Pace, Stream, buffers};
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome};

/// Octets read from the file of a growing body at once.
const FROM_FILE: u64 = 256 << 10;

pub struct Relay<'a> {
    context: &'a Context,
    client: &'a Stream,
    /// The head, and what is small enough to leave with it.
    out: &'a mut Vec<u8>,
    decoder: Decoder,
    /// What goes before; none any more, or never.
    prefix: Option<Prefix>,
    onward: Onward,
    from: Pace,
    /// For those who may come to wait for it.
    lead: Option<&'a Lead>,
    /// Octets at the front of the origin server's buffer that the store has, and the client or `out`.
    taken: usize,
}

/// What is still to come of a body: octets that are kept, and then those of the origin server.
pub struct Coming {
    pub prefix: Option<Prefix>,
    pub decoder: Decoder,
}

/// How far a client has got with a body.
pub struct Onward {
    encoder: Encoder,
    /// Octets of content that have left, or are in the outbox.
    pub octets: u64,
    /// Whether anything has left.
    pub sent: bool,
    to: Pace,
}

impl<'a> Relay<'a> {
    /// `to`: how the body is framed for the client.
    pub fn new(
        context: &'a Context,
        client: &'a Stream,
        out: &'a mut Vec<u8>,
        coming: Coming,
        to: Framing,
        lead: Option<&'a Lead>,
    ) -> Relay<'a> {
        let origin = &context.config.origin;
        Relay {
            decoder: coming.decoder,
            prefix: coming.prefix,
            onward: Onward::new(context, to),
            from: Pace::new(origin.body_timeout, origin.min_rate),
            context,
            client,
            out,
            lead,
            taken: 0,
        }
    }

    pub async fn run(&mut self, link: &mut Link, recording: &mut Recording) -> End {
        let relayed = match self.kept(recording).await {
            Ok(()) => self.relay(link, recording).await,
            Err(end) => Err(end),
        };
        relayed.err().unwrap_or(End::Whole)
    }

    /// What the client still needs, and what is to be read for everybody.
    pub fn into_parts(self, link: &mut Link) -> (Onward, Coming) {
        link.inbox.consume(self.taken);
        let (prefix, decoder) = (self.prefix, self.decoder);
        (self.onward, Coming { prefix, decoder })
    }

    /// What is kept already, before the rest of it comes.
    async fn kept(&mut self, recording: &mut Recording) -> Result<(), End> {
        while let Some(prefix) = &mut self.prefix {
            match prefix.next(self.context).await.map_err(|Lost| End::Store)? {
                Some(piece) => {
                    recording.write(&piece).await;
                    self.let_go(recording);
                    self.payload(&piece, recording.is_shareable()).await?;
                    self.look_behind(recording)?;
                }
                None => self.prefix = None,
            }
        }
        Ok(())
    }

    async fn relay(&mut self, link: &mut Link, recording: &mut Recording) -> Result<(), End> {
        let mut size = buffers::ORDINARY;
        loop {
            while !self.decoder.is_done() && !link.inbox.is_empty() {
                self.look_behind(recording)?;
                let step = self
                    .decoder
                    .decode(link.inbox.octets())
                    .map_err(|error| End::Origin(error.into()))?;
                let content = link.inbox.octets().get(step.data.clone());
                // Before the wait: whoever goes on from here must not take them a second time.
                self.taken = step.consumed;
                recording.write(content.unwrap_or_default()).await;
                self.let_go(recording);
                if step.done {
                    // Visible to everybody before the last octet leaves; and who has come to wait does not wait for this client.
                    recording.finish(self.context).await;
                    if let Some(lead) = self.lead.take() {
                        lead.settle(share::outcome(recording, &End::Whole));
                    }
                }
                let content = link.inbox.octets().get(step.data).unwrap_or_default();
                self.payload(content, recording.is_shareable()).await?;
                link.inbox.consume(std::mem::take(&mut self.taken));
                if step.consumed == 0 {
                    break;
                }
            }
            if self.decoder.is_done() {
                recording.finish(self.context).await;
                // An encoder that was promised another length than came is our own fault: the response is cut.
                let ended = self.onward.encoder.end(self.out);
                return ended.map_err(|_| End::ClientGone);
            }
            self.look_behind(recording)?;
            match self.lead.filter(|_| recording.is_shareable()) {
                None => self.onward.flush(self.client, self.out).await?,
                Some(lead) => {
                    let (client, out) = (self.client, &mut *self.out);
                    let piece = self.onward.piece_unless(client, out, b"", lead.wanted());
                    piece.await?;
                    self.look_behind(recording)?;
                }
            }
            // What is known to be large, or has filled a buffer: fewer, larger calls.
            if self
                .decoder
                .remaining()
                .is_some_and(|left| left > buffers::ORDINARY as u64)
            {
                size = buffers::LARGE;
            }
            let read = link.inbox.fill_paced(&link.stream, size, &mut self.from);
            let read = match self.lead.filter(|_| recording.is_shareable()) {
                None => read.await,
                Some(lead) => tokio::select! {
                    read = read => read,
                    () = lead.wanted() => continue,
                },
            };
            match read.map_err(|broken| End::Origin(broken.into()))? {
                0 => self
                    .decoder
                    .end_of_input()
                    .map_err(|error| End::Origin(error.into()))?,
                read if read == size => size = buffers::LARGE,
                _ => {}
            }
        }
    }

    /// Nobody waits for what the store has given up.
    fn let_go(&mut self, recording: &Recording) {
        if !recording.is_shareable()
            && let Some(lead) = self.lead.take()
        {
            lead.settle(Outcome::NotKept);
        }
    }

    /// Whether somebody has come who waits for it.
    fn look_behind(&self, recording: &Recording) -> Result<(), End> {
        match self.lead.is_some_and(Lead::is_wanted) && recording.is_shareable() {
            true => Err(End::Shared),
            false => Ok(()),
        }
    }

    async fn payload(&mut self, payload: &[u8], may_share: bool) -> Result<(), End> {
        let onward = &mut self.onward;
        if self.out.len() + payload.len() <= COPIED {
            onward.octets += payload.len() as u64;
            let copied = onward.encoder.data(payload, self.out);
            return copied.map_err(|_| End::ClientGone);
        }
        match self.lead.filter(|_| may_share) {
            None => onward.piece(self.client, self.out, payload).await,
            Some(lead) => {
                let piece = onward.piece_unless(self.client, self.out, payload, lead.wanted());
                piece.await
            }
        }
    }
}

// === impl Onward

impl Onward {
    pub fn new(context: &Context, to: Framing) -> Onward {
        let client = &context.config.client;
        Onward {
            encoder: Encoder::new(to),
            octets: 0,
            sent: false,
            to: Pace::new(client.write_timeout, client.min_rate),
        }
    }

    /// Sends `out`, and content behind it.
    async fn piece(
        &mut self,
        client: &Stream,
        out: &mut Vec<u8>,
        payload: &[u8],
    ) -> Result<(), End> {
        let never = std::future::pending();
        self.piece_unless(client, out, payload, never).await
    }

    /// The same, until `called`: then what has not left stays in `out`, so that whoever waits for the next octets from the
    /// origin server does not wait for this client.
    async fn piece_unless(
        &mut self,
        client: &Stream,
        out: &mut Vec<u8>,
        payload: &[u8],
        called: impl Future<Output = ()>,
    ) -> Result<(), End> {
        if out.is_empty() && payload.is_empty() {
            return Ok(());
        }
        let mut called = std::pin::pin!(called);
        let prefix = self.encoder.prefix(payload.len());
        let prefix = prefix.map_err(|_| End::ClientGone)?;
        let suffix: &[u8] = match payload.is_empty() {
            true => b"",
            false => self.encoder.suffix(),
        };
        self.octets += payload.len() as u64;
        self.sent = true;
        let head = std::mem::take(out);
        let mut parts = [head.as_slice(), prefix.as_ref(), payload, suffix].map(IoSlice::new);
        let mut rest = parts.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        let mut result = Ok(());
        while !rest.is_empty() {
            let written = tokio::select! {
                biased;
                written = client.write_some_paced(rest, &mut self.to) => written,
                () = &mut called => break,
            };
            match written {
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(broken) => {
                    result = Err(client_end(broken));
                    break;
                }
            }
        }
        let unsent: Vec<u8> = match result {
            Ok(()) => rest.iter().flat_map(|part| part.iter().copied()).collect(),
            Err(_) => Vec::new(),
        };
        *out = head;
        out.clear();
        out.extend_from_slice(&unsent);
        result
    }

    async fn flush(&mut self, client: &Stream, out: &mut Vec<u8>) -> Result<(), End> {
        self.piece(client, out, b"").await
    }

    /// Sends `out`, and then what comes for everybody, from where this client is.
    pub async fn follow(&mut self, client: &Stream, out: &mut Vec<u8>, body: &Growing) -> End {
        let from = self.octets;
        let followed = self.followed(client, out, body, from, u64::MAX).await;
        followed.err().unwrap_or(End::Whole)
    }

    /// The same from any octet to any other. Errors: why no more has left.
    pub async fn followed(
        &mut self,
        client: &Stream,
        out: &mut Vec<u8>,
        body: &Growing,
        from: u64,
        to: u64,
    ) -> Result<(), End> {
        let mut at = from;
        let reader = body.reader(at);
        while at < to {
            let wanted = to - at;
            let read = tokio::select! {
                biased;
                read = reader.read(at) => read,
                () = gone(Some(client)) => return Err(End::ClientGone),
            };
            let piece = match read {
                Read::Memory(piece) => piece.slice(..piece.len().min(as_index(wanted))),
                Read::File(file, end) => {
                    let length = wanted.min(end - at).min(FROM_FILE);
                    read_file(file, at, length).await.map_err(|_| End::Store)?
                }
                Read::End => break,
                Read::Broken if self.sent => return Err(End::Broken),
                Read::Broken => return Err(End::Unbegun),
            };
            at += piece.len() as u64;
            self.piece(client, out, &piece).await?;
        }
        drop(reader);
        let ended = self.encoder.end(out);
        ended.map_err(|_| End::Broken)?;
        self.flush(client, out).await
    }
}

fn as_index(octets: u64) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX)
}

pub async fn read_file(file: Arc<OwnedFd>, at: u64, length: u64) -> io::Result<bytes::Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(length as usize);
        match files::read(
            file.as_fd(),
            &mut piece,
            length as usize,
            at,
            Access::Blocking,
        )? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(bytes::Bytes::from(piece)),
        }
    });
    read.await.map_err(io::Error::other)?
}
