//! One client connection while it is in this worker: request after request, until it ends, or is quiet for
//! long enough to go back to the master.
//!
//! The first requests are served on the raw socket, before a task exists; one comes into being when the
//! connection has to wait. A session refuses to know what a request means: `exchange` does.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::{Active, Context, Held};
use super::exchange::{self, Begun, Later, Next};
use super::lobby::Seat;
use crate::cache::{Key, PolicyId, Side, key};
use crate::config::Mode;
use crate::dispatch::Conn;
use crate::http::head::{HeadError, RequestHead, Scan};
use crate::http::page::{Answer, AnswerReason};
use crate::http::target::{Memory, TargetUri};
use crate::ipc::{MAX_BYTES, Offer};
use crate::sys::clock;
use crate::wire::{Broken, Inbox, Pace, Stream, buffers};

/// Octets of answers that leave together at the most; more are written before the next request is looked at.
const COALESCED: usize = 64 * 1024;
/// Octets of answers after which other connections get their turn, however fast this client asks and reads.
const TURN: u64 = 1 << 20;
/// How long a closed connection's rest is read and dropped, so that a reset does not overtake our answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 256 * 1024;

/// One client connection.
pub struct Session {
    pub context: Rc<Context>,
    pub conn: Conn,
    pub mode: Mode,
    /// What the operator has decided about the request in progress.
    pub policy: PolicyId,
    /// Its key, where Cache-Status has that.
    pub key_told: Option<Key>,
    pub stream: Stream,
    /// Octets of requests that have arrived.
    pub inbox: Inbox,
    /// Octets of responses that have not left.
    pub outbox: Vec<u8>,
    /// The request being read; reused, so that its memory is.
    head: RequestHead,
    /// What its target leaves for the next one.
    pub memory: Memory,
    scan: Scan,
    /// When the first octet of an unfinished head was seen.
    head_began: Option<Instant>,
    /// When the answer before ended, if nothing has been waited for since: one look at the clock is enough for both.
    pub(super) ended: Cell<Option<Instant>>,
    /// Whether the client is still sending a body that nobody will read.
    pub expects_more: bool,
    /// Octets of answers that have left since other connections had their turn.
    pub turn: u64,
    /// Where it waits for its next request.
    seat: Option<Seat>,
    _held: Held,
}

/// What a session needs next.
enum Need {
    /// More octets of a request (or its first).
    Input,
    /// Room for answers, before more requests are looked at.
    Room,
    /// Nothing: it is for the others to go on.
    Turn,
    /// A request that cannot be answered at once.
    Wait(Box<Later>),
    Close,
}

/// Claims an offered socket and serves it; loses the race for it silently.
pub fn accept(context: &Rc<Context>, offer: Offer, fd: OwnedFd) {
    let held = context.session_begins();
    // Counted before the claim shows, so that the master never sees room where there is none.
    let active = context.request_begins();
    // Just before the first read: whoever loses closes its copy without a shutdown.
    if !context.region.ring(context.worker).claim(offer.seq) {
        return;
    }
    let mut session = Session::new(context, offer.conn, Stream::new(fd), offer.bytes, held);
    match session.begin() {
        Need::Close if session.end_now() => {}
        need => {
            let active = matches!(need, Need::Wait(_)).then_some(active);
            drop(tokio::task::spawn_local(session.run(need, active)));
        }
    }
}

impl Session {
    fn new(
        context: &Rc<Context>,
        conn: Conn,
        stream: Stream,
        octets: Vec<u8>,
        held: Held,
    ) -> Session {
        Session {
            context: context.clone(),
            mode: context.mode(&conn),
            policy: PolicyId::default(),
            key_told: None,
            conn,
            stream,
            inbox: Inbox::with(octets),
            outbox: Vec::new(),
            head: RequestHead::new(),
            memory: Memory::default(),
            scan: Scan::default(),
            head_began: None,
            ended: Cell::new(None),
            expects_more: false,
            turn: 0,
            seat: None,
            _held: held,
        }
    }

    /// Once a request; its URL is looked at only where there are rules for URLs.
    pub fn choose_policy(&mut self, uri: &TargetUri, side: Side) {
        let policies = &self.context.policies;
        let listener = usize::from(self.conn.listener);
        self.policy = match policies.has_rules() {
            false => policies.choose(listener, b""),
            true => {
                let mut text = self.context.key_buffer.take();
                text.clear();
                key::write(uri, Side::Forward, &mut text);
                let chosen = policies.choose(listener, &text);
                self.context.key_buffer.set(text);
                chosen
            }
        };
        let tells = policies.get(self.policy).status_key;
        self.key_told = tells.then(|| Key::of(uri, side));
    }

    /// The plain part: reads once and serves what needs no waiting.
    fn begin(&mut self) -> Need {
        if self.inbox.is_empty() {
            match self.inbox.try_fill(&self.stream, buffers::ORDINARY) {
                Ok(0) => return Need::Close,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Need::Input,
                Err(_) => return Need::Close,
            }
        }
        let need = self.serve_buffered();
        if !matches!(need, Need::Close) {
            self.flush_now();
        }
        need
    }

    /// Sends what is left and ends the connection, if nothing more is to be taken and the kernel takes it all now.
    fn end_now(&mut self) -> bool {
        if !self.inbox.is_empty() || self.expects_more {
            return false;
        }
        if self.outbox.is_empty() {
            self.stream.shutdown_write();
            return true;
        }
        match self.stream.try_write_last(&self.outbox) {
            Ok(written) if written == self.outbox.len() => {
                buffers::give(&mut self.outbox);
                true
            }
            Ok(written) => {
                self.outbox.drain(..written);
                false
            }
            // Waiting, or learning that the client is gone, is `flush`'s business.
            Err(_) => false,
        }
    }

    /// Everything after the first wait.
    async fn run(mut self, mut need: Need, mut active: Option<Active>) {
        loop {
            need = match need {
                Need::Close => break,
                Need::Wait(later) => {
                    let active = active.take();
                    let _active = active.unwrap_or_else(|| self.context.request_begins());
                    let next = exchange::run(&mut self, later).await;
                    self.conn.queued_ms = 0;
                    match next {
                        Next::KeepAlive => self.serve_buffered(),
                        Next::Close => Need::Close,
                        // Dropped as it is: what was cut short must not end in order.
                        Next::Abort | Next::Tunnelled => return,
                    }
                }
                Need::Room => match self.flush().await {
                    Ok(()) => self.serve_buffered(),
                    Err(_) => return,
                },
                Need::Turn => {
                    self.flush_now();
                    tokio::task::yield_now().await;
                    self.serve_buffered()
                }
                Need::Input => {
                    // Nearly always the kernel takes everything, and nothing is left to wait for.
                    self.flush_now();
                    if self.flush().await.is_err() {
                        return;
                    }
                    match self.more_input().await {
                        Input::Some => self.serve_buffered(),
                        Input::Close => Need::Close,
                        Input::GiveBack => return self.give_back(),
                    }
                }
            };
        }
        if self.flush().await.is_ok() {
            self.linger().await;
        }
    }

    /// Serves whole requests from the inbox as long as none needs waiting. Answers collect in the outbox.
    fn serve_buffered(&mut self) -> Need {
        self.turn = 0;
        self.ended.set(None);
        loop {
            if self.inbox.is_empty() {
                return Need::Input;
            }
            if self.turn >= TURN {
                return Need::Turn;
            }
            match self
                .head
                .parse_more(&mut self.scan, self.inbox.octets(), &self.context.limits)
            {
                // An empty line that a client puts behind its request begins no other: the connection is idle.
                Ok(None) if self.scan.is_before_head(self.inbox.octets()) => {
                    self.inbox.consume(self.inbox.len());
                    self.scan = Scan::default();
                    self.head_began = None;
                    return Need::Input;
                }
                Ok(None) => {
                    self.head_began.get_or_insert_with(Instant::now);
                    return Need::Input;
                }
                Ok(Some(octets)) => self.inbox.consume(octets),
                Err(error) => return self.refuse_head(error),
            }
            self.scan = Scan::default();
            self.head_began = None;
            self.conn.requests += 1;
            match exchange::begin(self) {
                Begun::Written(Next::KeepAlive) => self.conn.queued_ms = 0,
                Begun::Written(_) => return Need::Close,
                Begun::Later(later) => return Need::Wait(later),
            }
            if self.outbox.len() >= COALESCED {
                self.flush_now();
                self.ended.set(None);
                if !self.outbox.is_empty() {
                    return Need::Room;
                }
            }
        }
    }

    fn refuse_head(&mut self, error: HeadError) -> Need {
        // The connection has no next request: what follows a malformed head is anybody's guess.
        self.conn.requests += 1;
        exchange::refuse_unread(self, &Answer::new(error.into(), error.to_string()));
        self.scan = Scan::default();
        Need::Close
    }

    /// Takes the head of the request that has just been read.
    pub fn take_head(&mut self) -> RequestHead {
        std::mem::take(&mut self.head)
    }

    /// Gives a head back that nobody needs any more, for the memory it has.
    pub fn recycle_head(&mut self, head: RequestHead) {
        self.head = head;
    }

    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    // === output

    /// Writes what the kernel takes now.
    pub fn flush_now(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        // Waiting, or learning that the client is gone, is `flush`'s business.
        let written = self.stream.try_write(&[IoSlice::new(&self.outbox)]);
        let written = written.unwrap_or(0);
        self.turn += written as u64;
        match written == self.outbox.len() {
            true => buffers::give(&mut self.outbox),
            false => drop(self.outbox.drain(..written)),
        }
    }

    /// Writes everything, at the pace that a client must keep.
    pub async fn flush(&mut self) -> Result<(), Broken> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let client = &self.context.config.client;
        let mut pace = Pace::new(client.write_timeout, client.min_rate);
        self.stream
            .write_paced(&mut [IoSlice::new(&self.outbox)], &mut pace)
            .await?;
        buffers::give(&mut self.outbox);
        Ok(())
    }

    // === input

    async fn more_input(&mut self) -> Input {
        if self.inbox.is_empty() {
            self.next_request().await
        } else {
            self.rest_of_head().await
        }
    }

    /// Waits for the first octet of the next request, for the grace at the most.
    async fn next_request(&mut self) -> Input {
        self.inbox.release();
        let context = self.context.clone();
        if context.is_draining() {
            return Input::Close;
        }
        if context.is_over_share() {
            return Input::GiveBack;
        }
        let (grace, idle) = (
            context.config.worker.grace,
            context.config.client.idle_timeout,
        );
        let until = clock::coarse_ms().saturating_add(grace.min(idle).as_millis() as u64);
        let seat = self.seat.get_or_insert_with(|| context.lobby.seat());
        let arrival = self.inbox.fill_when_ready(&self.stream, buffers::ORDINARY);
        match seat.wait(until, arrival).await {
            None if idle < grace || context.is_draining() => Input::Close,
            None => Input::GiveBack,
            Some(Ok(0) | Err(_)) => Input::Close,
            Some(Ok(_)) => Input::Some,
        }
    }

    /// RFC 9110 section 15.5.9: a head that does not end in time is answered with 408. The deadline is for the
    /// whole head: another octet does not extend it.
    async fn rest_of_head(&mut self) -> Input {
        let began = *self.head_began.get_or_insert_with(Instant::now);
        let deadline = began + self.context.config.client.header_timeout;
        let more = self.inbox.fill(&self.stream, buffers::ORDINARY);
        match tokio::time::timeout_at(deadline, more).await {
            Ok(Ok(0) | Err(_)) => Input::Close,
            Ok(Ok(_)) => Input::Some,
            Err(_) => {
                self.conn.requests += 1;
                exchange::refuse_unread(self, &Answer::new(AnswerReason::HeaderTimeout, ""));
                Input::Close
            }
        }
    }

    /// Whether the connection may carry another request after this one.
    pub fn may_go_on(&self) -> bool {
        let most = self.context.config.client.max_requests;
        !self.context.is_draining() && (most == 0 || (self.conn.requests as usize) < most)
    }

    // === ends

    fn give_back(mut self) {
        if self.inbox.len() > MAX_BYTES {
            return;
        }
        let octets = self.inbox.take();
        self.context
            .give_back(self.conn, self.stream.into_fd(), octets);
    }

    /// RFC 9112 section 9.6: "the server ... half-closes the write side of the read/write connection. The server
    /// then continues to read from the connection until it receives a corresponding close by the client", bounded.
    async fn linger(mut self) {
        self.stream.shutdown_write();
        let drain = async {
            let mut left = LINGER_OCTETS;
            self.inbox.take();
            while let Ok(read @ 1..) = self.inbox.fill(&self.stream, buffers::ORDINARY).await {
                self.inbox.consume(read);
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }

    /// How long the connection waited in the master's queue before this worker had it.
    pub fn queued(&self) -> Duration {
        Duration::from_millis(u64::from(self.conn.queued_ms))
    }
}

/// What came of waiting for input.
enum Input {
    Some,
    Close,
    GiveBack,
}
