//! A request on its way to the origin server, head and body, beside whatever else the exchange does.
//!
//! It may go on while the response is delivered, and can be left at any await: what was read and not yet written
//! stays here. A request that left in one piece is kept, so that it can be sent once more.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Request;
use crate::config::Config;
use crate::http::body::{BodyError, Decoder, Encoder};
use crate::wire::{Broken, Inbox, Pace, Stream, buffers};
use crate::worker::herd::Lead;

/// RFC 9110 section 10.1.1: a client that waits for 100 "SHOULD NOT wait for an indefinite period"; neither do
/// we for the origin server to send one.
const CONTINUE_AFTER: Duration = Duration::from_secs(1);
/// How long an origin server may take before it is worth a registration to see the client go. Most are quicker.
const WATCH_AFTER: Duration = Duration::from_millis(100);
/// Octets laid out at once.
const MOST_PENDING: usize = 64 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a request comes to nothing, where that is the client's doing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("the client's connection broke within its request's body")]
    Broken,
    #[error("the client has reset the connection")]
    Gone,
    #[error("the request's body is malformed: {0}")]
    Malformed(#[from] BodyError),
    #[error("the request's body stalled")]
    Stalled,
}

pub struct RequestBody {
    decoder: Decoder,
    encoder: Encoder,
    state: State,
    /// Octets that the origin server gets next: the head, then the encoded body piece by piece.
    pending: Vec<u8>,
    sent: usize,
    /// Whether `pending` holds the request from its first octet on.
    from_start: bool,
    /// Until when the client waits for 100 (Continue).
    hold_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Going,
    /// All octets have left.
    Whole,
    /// The origin server takes no more; its response may still come.
    Refused,
}

/// The two connections between which a body moves, and their paces.
pub struct Ends<'a> {
    /// None: nobody sends anything.
    pub client: Option<&'a Stream>,
    /// Those who wait for the answer, too.
    pub lead: Option<&'a Lead>,
    pub inbox: &'a mut Inbox,
    pub origin: Rc<Stream>,
    pub config: &'a Config,
}

impl RequestBody {
    pub fn of(request: &Request) -> RequestBody {
        RequestBody {
            decoder: Decoder::new(request.framing),
            encoder: Encoder::new(request.framing),
            state: State::Going,
            pending: Vec::new(),
            sent: 0,
            from_start: true,
            hold_until: request
                .expects_continue
                .then(|| Instant::now() + CONTINUE_AFTER),
        }
    }

    /// Lays out the head, and what is there of the body already, for the first write.
    pub fn begin(&mut self, head: Vec<u8>, inbox: &mut Inbox) -> Result<(), Trouble> {
        self.pending = head;
        self.sent = 0;
        self.state = State::Going;
        self.take(inbox).map(drop)
    }

    /// Goes back to the start, for another connection. False: octets are gone that cannot be sent again.
    pub fn rewind(&mut self) -> bool {
        if self.from_start {
            self.sent = 0;
            self.state = State::Going;
        }
        self.from_start
    }

    /// Whether the next octet on the client's connection belongs to its next request.
    pub fn is_read(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether the origin server has all of it, and may get another request on that connection.
    pub fn is_sent(&self) -> bool {
        self.state == State::Whole
    }

    /// Whether the client still waits for 100 (Continue); asking ends the wait.
    pub fn go_ahead(&mut self) -> bool {
        self.hold_until.take().is_some()
    }

    /// The final response has begun: a client that still waits for 100 (Continue) gets no go-ahead in the midst of it, and
    /// need not send its body any more.
    pub fn answered(&mut self) {
        if self.hold_until.take().is_some() && self.state == State::Going {
            self.state = State::Refused;
        }
    }

    /// Runs `other` to its end and moves the request meanwhile, as long as there is a client. `limit` is the time that
    /// `other` has once the request has left; None: it ran out.
    pub async fn beside<T>(
        &mut self,
        ends: Ends<'_>,
        limit: Option<Duration>,
        mut other: Pin<&mut impl Future<Output = T>>,
    ) -> Result<Option<T>, Trouble> {
        let (client, lead) = (ends.client, ends.lead);
        if self.state == State::Going {
            tokio::select! {
                biased;
                moved = self.finish(ends) => moved?,
                value = &mut other => return Ok(Some(value)),
            }
        }
        // Most answers come sooner than either wait is over, so that one timer does for both.
        let soon = limit.map_or(WATCH_AFTER, |limit| limit.min(WATCH_AFTER));
        if let Ok(value) = timeout(soon, other.as_mut()).await {
            return Ok(Some(value));
        }
        let limited = async {
            match limit {
                Some(limit) => timeout(limit - soon, other).await.ok(),
                None => Some(other.await),
            }
        };
        tokio::select! {
            biased;
            value = limited => Ok(value),
            () = forsaken(client, lead) => Err(Trouble::Gone),
        }
    }

    /// Moves the request to its end. May be dropped at any await and called again.
    async fn finish(&mut self, ends: Ends<'_>) -> Result<(), Trouble> {
        let Ends {
            client,
            inbox,
            origin,
            config,
            ..
        } = ends;
        let mut from = Pace::new(config.client.body_timeout, config.client.min_rate);
        let mut to = Pace::new(config.origin.body_timeout, config.origin.min_rate);
        while self.state == State::Going {
            if self.sent < self.pending.len() {
                // One write at a time: were this future left between two, the count would be lost.
                let rest = IoSlice::new(&self.pending[self.sent..]);
                match origin.write_some_paced(&[rest], &mut to).await {
                    Ok(written) => self.sent += written,
                    Err(_) => self.state = State::Refused,
                }
            } else if self.decoder.is_done() {
                self.state = State::Whole;
            } else if !self.take_next(inbox)? {
                let client = client.ok_or(Trouble::Broken)?;
                self.hold(client, config).await?;
                match inbox.fill_paced(client, buffers::ORDINARY, &mut from).await {
                    Ok(1..) => {}
                    Err(Broken::Stalled) => return Err(Trouble::Stalled),
                    Ok(0) | Err(Broken::Io(_)) => return Err(Trouble::Broken),
                }
            }
        }
        Ok(())
    }

    /// Replaces what has left by what comes next. False: the inbox holds too little to go on.
    fn take_next(&mut self, inbox: &mut Inbox) -> Result<bool, Trouble> {
        if inbox.is_empty() {
            return Ok(false);
        }
        self.pending.clear();
        self.sent = 0;
        self.from_start = false;
        self.take(inbox)
    }

    /// Decodes what has arrived onto the end of `pending`, a buffer's worth at the most.
    fn take(&mut self, inbox: &mut Inbox) -> Result<bool, Trouble> {
        let mut moved = false;
        while !self.decoder.is_done() && !inbox.is_empty() && self.pending.len() < MOST_PENDING {
            // A client that sends its body does not wait for 100 (Continue).
            self.hold_until = None;
            let step = self.decoder.decode(inbox.octets())?;
            let payload = inbox.octets().get(step.data).unwrap_or_default();
            // The encoder has the decoder's framing: it is never given more than it promised.
            let _ = self.encoder.data(payload, &mut self.pending);
            inbox.consume(step.consumed);
            if step.consumed == 0 && !step.done {
                return Ok(moved);
            }
            moved = true;
            if step.done {
                let _ = self.encoder.end(&mut self.pending);
            }
        }
        Ok(moved)
    }

    /// A client that waits for 100 (Continue) gets it from the origin server, or in a second from us.
    async fn hold(&mut self, client: &Stream, config: &Config) -> Result<(), Trouble> {
        if let Some(until) = self.hold_until {
            tokio::time::sleep_until(until).await;
            self.hold_until = None;
            let mut pace = Pace::new(config.client.write_timeout, config.client.min_rate);
            client
                .write_paced(&mut [IoSlice::new(CONTINUE)], &mut pace)
                .await
                .map_err(|_| Trouble::Broken)?;
        }
        Ok(())
    }
}

/// Ends when the client is gone, and nobody else waits for the answer.
async fn forsaken(client: Option<&Stream>, lead: Option<&Lead>) {
    has_reset(client).await;
    if let Some(lead) = lead {
        lead.forsaken().await;
    }
}

/// Ends when the client has reset its connection, so that nobody works for it any more; nothing is watched at first.
pub async fn gone(client: Option<&Stream>) {
    tokio::time::sleep(WATCH_AFTER).await;
    has_reset(client).await;
}

async fn has_reset(client: Option<&Stream>) {
    let Some(client) = client else {
        return std::future::pending().await;
    };
    if client.reset().await.is_err() {
        // It cannot be watched; writing to it will tell.
        std::future::pending().await
    }
}
