//! The world around the mind: sockets, clients, workers, channels and rings, as simple as they can be.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::dispatch::{
    Action, CloseReason, Conn, Dispatch, Event, Load, Retry, Settings, Shutdown, Token,
};

const RING: usize = 64;
const INBOX: usize = 12;

/// One client connection; its index is its identity.
struct Socket {
    client_open: bool,
    /// A request has been sent and not been answered.
    pending: bool,
    /// Which worker (and which life of it) has claimed it.
    owner: Option<(usize, u32)>,
    /// Nobody will ever serve it again, and why.
    ended: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    ByMaster,
    ByWorker,
    /// Its worker died after the claim.
    WithWorker,
    /// Never accepted.
    NotAccepted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Free,
    Offered(u64),
    Claimed(u64),
    Revoked(u64),
}

enum ToWorker {
    Offer { seq: u64, socket: usize, conn: Conn },
    Drain,
    Stop,
}

enum ToMaster {
    Ready,
    Return {
        socket: usize,
        conn: Conn,
        with_bytes: bool,
    },
}

struct Worker {
    alive: bool,
    /// The master has not been told of its death.
    unreaped: bool,
    life: u32,
    stopped: bool,
    said_ready: bool,
    draining: bool,
    heartbeat: u64,
    inbox: VecDeque<ToWorker>,
    outbox: VecDeque<ToMaster>,
    holding: Vec<(usize, Conn)>,
    ring: [Entry; RING],
    /// The master waits to hear that the inbox has room.
    wants_writable: bool,
}

pub(super) struct World {
    rng: fastrand::Rng,
    pub(super) now: u64,
    mind: Dispatch,
    settings: Settings,
    sockets: Vec<Socket>,
    workers: Vec<Worker>,
    backlog: VecDeque<usize>,
    /// The master's descriptors, by the token's place.
    table: Vec<Option<(Token, usize)>>,
    watched: HashSet<Token>,
    /// Offers that the master has not seen settled.
    offers: HashMap<(usize, u64), Token>,
    accepting: bool,
    listening: bool,
    faults: bool,
    pub(super) finished: bool,
    /// What this world has seen, by name.
    pub(super) happened: BTreeSet<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let workers = rng.usize(1..=4);
        let settings = Settings {
            workers,
            priorities: vec![0, 3, 1],
            queue_capacity: rng.usize(4..60),
            ageing_ms: rng.u64(0..500),
            idle_timeout_ms: rng.u64(2_000..20_000),
            max_active: rng.u32(1..20),
            shutdown_timeout_ms: rng.u64(0..10_000),
            descriptors: rng.usize(60..120),
            reserve: 30,
        };
        let mut world = World {
            now: 1_000,
            mind: Dispatch::new(settings.clone()),
            settings,
            sockets: Vec::new(),
            workers: std::iter::repeat_with(Worker::new).take(workers).collect(),
            backlog: VecDeque::new(),
            table: Vec::new(),
            watched: HashSet::new(),
            offers: HashMap::new(),
            accepting: false,
            listening: true,
            faults: false,
            finished: false,
            happened: BTreeSet::new(),
            rng,
        };
        let mut out = Vec::new();
        world.mind.start(world.now, &mut out);
        world.carry_out(out);
        for _ in 0..1_000 {
            world.round();
            if world.mind.is_serving() {
                break;
            }
        }
        assert!(world.mind.is_serving());
        world.faults = true;
        world
    }

    /// Anything at all happens.
    pub(super) fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..=14 => self.connect(),
            15..=29 => self.ask(),
            30..=33 => self.leave(),
            34..=63 => {
                let worker = self.rng.usize(0..self.workers.len());
                self.work(worker);
            }
            64..=65 => self.stop_or_continue(),
            66 => {
                let worker = self.rng.usize(0..self.workers.len());
                self.die(worker);
            }
            67..=79 => self.now += self.rng.u64(0..20),
            80 => self.now += self.rng.u64(0..1_000),
            81 if self.rng.u32(0..20) == 0 => self.now += 31_000,
            82 if self.rng.u32(0..10) == 0 => {
                let worker = self.rng.usize(0..self.workers.len());
                self.tell(Event::Misbehaved { worker });
            }
            _ => self.wake_master(),
        }
    }

    /// Time goes on and everybody does what there is to do.
    pub(super) fn round(&mut self) {
        self.now += 50;
        for worker in 0..self.workers.len() {
            for _ in 0..40 {
                self.work(worker);
            }
        }
        self.wake_master();
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.rng.usize(0..bound)
    }

    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.workers
            .iter_mut()
            .for_each(|worker| worker.stopped = false);
    }

    pub(super) fn leave_all(&mut self) {
        self.sockets
            .iter_mut()
            .for_each(|socket| socket.client_open = false);
    }

    pub(super) fn shut_down(&mut self, how: Shutdown) {
        self.tell(Event::Shutdown(how));
    }

    /// Nobody who is still connected waits for an answer.
    pub(super) fn is_served(&self) -> bool {
        self.sockets
            .iter()
            .all(|socket| socket.ended.is_some() || !socket.pending)
    }

    /// No descriptor is left anywhere but in messages that nobody will claim, and those are gone too.
    pub(super) fn is_empty(&self) -> bool {
        self.mind.held() == 0
            && self.mind.queued() == 0
            && self.mind.parked() == 0
            && self.table.iter().all(Option::is_none)
            && self.offers.is_empty()
            && self.watched.is_empty()
            && self.sockets.iter().all(|socket| socket.ended.is_some())
            && self
                .workers
                .iter()
                .all(|worker| worker.holding.is_empty() && worker.outbox.is_empty())
    }

    /// Who owns what, by the model and by the mind.
    pub(super) fn check(&self) {
        self.mind.check_invariants();
        let kept = self.table.iter().flatten().count();
        assert_eq!(
            kept,
            self.mind.held(),
            "descriptors in the table, and connections in the mind"
        );
        let mut places = vec![0; self.sockets.len()];
        let claimed: HashSet<Token> = self
            .offers
            .iter()
            .filter(|((worker, seq), _)| self.workers[*worker].entry(*seq) == Entry::Claimed(*seq))
            .map(|(_, token)| *token)
            .collect();
        for (token, socket) in self.table.iter().flatten() {
            places[*socket] += usize::from(!claimed.contains(token));
        }
        self.backlog.iter().for_each(|socket| places[*socket] += 1);
        for worker in &self.workers {
            worker
                .holding
                .iter()
                .for_each(|(socket, _)| places[*socket] += 1);
            for message in &worker.outbox {
                if let ToMaster::Return { socket, .. } = message {
                    places[*socket] += 1;
                }
            }
        }
        for (index, (socket, places)) in self.sockets.iter().zip(places).enumerate() {
            let due = usize::from(socket.ended.is_none());
            assert_eq!(
                places, due,
                "socket {index} ({:?}) must have {due} owners\n{self}",
                socket.ended
            );
        }
        assert!(self.mind.next_wake(self.now) >= self.now);
    }

    // === Clients ===

    fn connect(&mut self) {
        let pending = self.rng.bool();
        let ended = (!self.listening).then_some(End::NotAccepted);
        self.sockets.push(Socket {
            client_open: true,
            pending,
            owner: None,
            ended,
        });
        if self.listening {
            self.backlog.push_back(self.sockets.len() - 1);
        }
    }

    fn ask(&mut self) {
        let index = self.rng.usize(0..self.sockets.len().max(1));
        if let Some(socket) = self
            .sockets
            .get_mut(index)
            .filter(|socket| socket.client_open)
        {
            socket.pending = socket.ended.is_none();
        }
    }

    fn leave(&mut self) {
        let index = self.rng.usize(0..self.sockets.len().max(1));
        if let Some(socket) = self.sockets.get_mut(index) {
            socket.client_open = false;
        }
    }

    // === Workers ===

    /// One worker does one thing.
    fn work(&mut self, index: usize) {
        if !self.workers[index].alive || self.workers[index].stopped {
            return;
        }
        self.workers[index].heartbeat = self.now;
        if !self.workers[index].said_ready {
            self.workers[index].said_ready = true;
            self.workers[index].outbox.push_back(ToMaster::Ready);
            return;
        }
        match self.rng.u32(0..10) {
            0..=3 => self.take_message(index),
            4..=7 => self.answer(index),
            _ => self.give_back(index),
        }
        let worker = &self.workers[index];
        if worker.draining && worker.holding.is_empty() && worker.inbox.is_empty() {
            self.die(index);
        }
    }

    fn take_message(&mut self, index: usize) {
        let life = self.workers[index].life;
        // Messages come in order; what is made of them may be delayed.
        let late = self.rng.u32(0..8) == 0 && !self.workers[index].draining;
        let inbox = &mut self.workers[index].inbox;
        if late {
            inbox.rotate_left(inbox.len().min(1));
        }
        match inbox.pop_front() {
            Some(ToWorker::Offer { seq, socket, conn }) => {
                if self.workers[index].entry(seq) != Entry::Offered(seq) {
                    // Revoked: the copy is closed, nothing else.
                    self.note("woke up too late");
                    return;
                }
                self.workers[index].ring[seq as usize % RING] = Entry::Claimed(seq);
                let state = &mut self.sockets[socket];
                assert_eq!(state.owner, None, "socket {socket} is claimed twice");
                assert_eq!(
                    state.ended, None,
                    "socket {socket} is claimed after its end"
                );
                state.owner = Some((index, life));
                self.workers[index].holding.push((socket, conn));
            }
            Some(ToWorker::Drain) => self.workers[index].draining = true,
            Some(ToWorker::Stop) => self.die(index),
            None => {}
        }
    }

    fn answer(&mut self, index: usize) {
        let holding = &self.workers[index].holding;
        if holding.is_empty() {
            return;
        }
        let at = self.rng.usize(0..holding.len());
        let (socket, _) = holding[at];
        let life = self.workers[index].life;
        let state = &mut self.sockets[socket];
        assert_eq!(state.owner, Some((index, life)), "only the owner answers");
        if state.pending {
            state.pending = false;
            self.workers[index].holding[at].1.requests += 1;
        } else if !state.client_open || self.workers[index].draining {
            self.workers[index].holding.swap_remove(at);
            self.end(socket, End::ByWorker);
        }
    }

    fn give_back(&mut self, index: usize) {
        let holding = self.workers[index].holding.len();
        if holding == 0 || self.workers[index].draining {
            return;
        }
        let at = self.rng.usize(0..holding);
        let (socket, mut conn) = self.workers[index].holding.swap_remove(at);
        conn.active_ms = self.now;
        let state = &mut self.sockets[socket];
        state.owner = None;
        let with_bytes = state.pending && self.rng.bool();
        self.workers[index].outbox.push_back(ToMaster::Return {
            socket,
            conn,
            with_bytes,
        });
    }

    fn stop_or_continue(&mut self) {
        let index = self.rng.usize(0..self.workers.len());
        self.workers[index].stopped = !self.workers[index].stopped;
    }

    /// What it had claimed ends with it; what it had sent arrives; what it had not read is nowhere.
    fn die(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if !worker.alive {
            return;
        }
        worker.alive = false;
        worker.unreaped = true;
        worker.inbox.clear();
        for (socket, _) in std::mem::take(&mut worker.holding) {
            self.note("lost with its worker");
            self.end(socket, End::WithWorker);
        }
    }

    fn end(&mut self, socket: usize, how: End) {
        let state = &mut self.sockets[socket];
        assert_eq!(state.ended, None, "socket {socket} ends twice");
        state.ended = Some(how);
        state.owner = None;
    }

    // === The master ===

    pub(super) fn wake_master(&mut self) {
        if self.finished {
            return;
        }
        // One batch: what comes first in it may make the rest stale, and the mind must know by the tokens alone.
        let parked = self.parked_events();
        if self.rng.bool() {
            self.accept();
        }
        for worker in 0..self.workers.len() {
            self.receive(worker);
        }
        parked.into_iter().for_each(|event| self.tell(event));
        self.accept();
        for worker in 0..self.workers.len() {
            // Claims are seen late now and then, so that a revocation races with them.
            if self.rng.bool() {
                self.look_at_ring(worker);
            }
            // SIGCHLD may come later than everything else.
            if self.rng.bool() {
                self.reap(worker);
            }
        }
        let loads: Vec<Load> = self
            .workers
            .iter()
            .map(|worker| worker.load(&self.sockets))
            .collect();
        let mut out = Vec::new();
        self.mind.pass(&loads, self.now, &mut out);
        self.carry_out(out);
    }

    fn accept(&mut self) {
        for _ in 0..self.rng.usize(1..20) {
            if !self.mind.may_accept() || self.backlog.is_empty() {
                return;
            }
            assert!(
                self.accepting,
                "the mind accepts only while the listeners are watched"
            );
            if self.faults && self.rng.u32(0..40) == 0 {
                self.tell(Event::AcceptFailed);
                return;
            }
            let Some(socket) = self.backlog.pop_front() else {
                return;
            };
            let listener = self.rng.u16(0..4);
            let conn = Conn::accepted("192.0.2.1:1".parse().unwrap(), listener, self.now);
            self.admit(socket, conn, self.sockets[socket].pending);
            let most = self.settings.descriptors - self.settings.reserve;
            assert!(
                self.mind.held() <= most,
                "accepting leaves the reserve alone"
            );
        }
    }

    fn admit(&mut self, socket: usize, conn: Conn, ready: bool) {
        let token = self.mind.admit(conn);
        if self.table.len() <= token.index() {
            self.table.resize(token.index() + 1, None);
        }
        let place = &mut self.table[token.index()];
        assert!(place.is_none(), "the token's place is free");
        *place = Some((token, socket));
        self.tell(Event::Arrived { token, ready });
    }

    /// What epoll would report, in no particular order.
    fn parked_events(&mut self) -> Vec<Event> {
        let mut watched: Vec<Token> = self.watched.iter().copied().collect();
        watched.sort();
        self.rng.shuffle(&mut watched);
        let kept = |token: Token| self.table[token.index()].expect("a watched socket is kept");
        let event = |token: Token| {
            let socket = &self.sockets[kept(token).1];
            match (socket.pending, socket.client_open) {
                (true, _) => Some(Event::Readable(token)),
                (false, false) => Some(Event::HungUp(token)),
                (false, true) => None,
            }
        };
        watched.into_iter().filter_map(event).collect()
    }

    fn receive(&mut self, index: usize) {
        for _ in 0..self.rng.usize(1..10) {
            let mut out = Vec::new();
            let room = self.mind.make_room(1, &mut out);
            self.carry_out(out);
            if !room {
                return;
            }
            let Some(message) = self.workers[index].outbox.pop_front() else {
                break;
            };
            self.heard(index, message);
        }
        let worker = &mut self.workers[index];
        if worker.wants_writable && worker.inbox.len() < INBOX / 2 {
            worker.wants_writable = false;
            self.tell(Event::Writable { worker: index });
        }
    }

    fn heard(&mut self, index: usize, message: ToMaster) {
        match message {
            ToMaster::Ready => self.tell(Event::Ready { worker: index }),
            ToMaster::Return {
                socket,
                conn,
                with_bytes,
            } => self.admit(socket, conn, with_bytes),
        }
    }

    fn look_at_ring(&mut self, index: usize) {
        let open: Vec<u64> = self.mind.open_offers(index).collect();
        for seq in open {
            if self.workers[index].entry(seq) == Entry::Claimed(seq) {
                if self.workers[index].unreaped {
                    self.note("claimed by a dead worker");
                }
                self.tell(Event::Claimed { worker: index, seq });
            }
        }
    }

    fn reap(&mut self, index: usize) {
        if !self.workers[index].unreaped {
            return;
        }
        while let Some(message) = self.workers[index].outbox.pop_front() {
            self.heard(index, message);
        }
        self.look_at_ring(index);
        self.workers[index].unreaped = false;
        self.offers.retain(|(worker, _), _| *worker != index);
        self.tell(Event::Died { worker: index });
    }

    fn tell(&mut self, event: Event) {
        let mut out = Vec::new();
        self.mind.on(event, self.now, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            let named = format!("{action:?}");
            named
                .split(|c: char| !c.is_alphabetic())
                .for_each(|word| self.note(word));
            match action {
                Action::Watch(token) => assert!(self.watched.insert(token), "watched once"),
                Action::Unwatch(token) => assert!(self.watched.remove(&token), "was watched"),
                Action::Offer { worker, seq, token } => self.offer(worker, seq, token),
                Action::Revoke { worker, seq } => self.revoke(worker, seq),
                Action::Release(token) => {
                    self.offers.retain(|_, offered| *offered != token);
                    self.let_go(token);
                }
                Action::Close(token, _) | Action::Refuse(token) => {
                    let socket = self.let_go(token);
                    if matches!(action, Action::Close(_, CloseReason::HungUp)) {
                        assert!(!self.sockets[socket].client_open, "the client has left");
                    }
                    assert_eq!(
                        self.sockets[socket].owner, None,
                        "the master ends only what is its own"
                    );
                    self.end(socket, End::ByMaster);
                }
                Action::Spawn { worker } => self.spawn(worker),
                Action::Kill { worker, .. } => self.die(worker),
                Action::Bury { worker } => {
                    assert!(!self.workers[worker].alive && !self.workers[worker].unreaped);
                    self.workers[worker].ring = [Entry::Free; RING];
                    self.workers[worker].heartbeat = 0;
                }
                Action::Drain { worker } => self.workers[worker].inbox.push_back(ToWorker::Drain),
                Action::Stop { worker } => self.workers[worker].inbox.push_back(ToWorker::Stop),
                Action::Serve | Action::ResumeAccept => self.accepting = true,
                Action::PauseAccept => self.accepting = false,
                Action::CloseListeners => self.close_listeners(),
                Action::GiveUp { .. } => panic!("every start succeeds sooner or later"),
                Action::Finished => {
                    assert!(
                        self.workers
                            .iter()
                            .all(|worker| !worker.alive && !worker.unreaped)
                    );
                    self.finished = true;
                }
            }
        }
    }

    fn offer(&mut self, index: usize, seq: u64, token: Token) {
        let (kept, socket) = self.table[token.index()].expect("an offered socket is kept");
        assert_eq!(kept, token);
        assert!(
            !self.watched.contains(&token),
            "an offered socket is not watched"
        );
        let entry = self.workers[index].entry(seq);
        let open = self
            .offers
            .keys()
            .any(|(worker, other)| *worker == index && entry == Entry::Offered(*other));
        assert!(!open, "the ring's entry is not in use");
        self.workers[index].ring[seq as usize % RING] = Entry::Offered(seq);
        let full = self.workers[index].inbox.len() >= INBOX;
        if full || (self.faults && self.rng.u32(0..50) == 0) {
            self.workers[index].ring[seq as usize % RING] = Entry::Revoked(seq);
            let retry = if full { Retry::Writable } else { Retry::Later };
            self.workers[index].wants_writable |= full;
            self.tell(Event::Unsent {
                worker: index,
                seq,
                retry,
            });
            return;
        }
        self.offers.insert((index, seq), token);
        if self.workers[index].alive {
            let conn = *self
                .mind
                .conn(token)
                .expect("an offered connection is known");
            self.workers[index]
                .inbox
                .push_back(ToWorker::Offer { seq, socket, conn });
        } else {
            self.note("offered to a dead worker");
        }
    }

    fn revoke(&mut self, worker: usize, seq: u64) {
        if self.workers[worker].entry(seq) == Entry::Offered(seq) {
            self.workers[worker].ring[seq as usize % RING] = Entry::Revoked(seq);
            self.offers.remove(&(worker, seq));
            self.note("revoked before it was claimed");
            self.tell(Event::Revoked { worker, seq });
        } else {
            self.note("claimed before it was revoked");
            assert!(self.workers[worker].entry(seq) == Entry::Claimed(seq));
            self.tell(Event::Claimed { worker, seq });
        }
    }

    fn let_go(&mut self, token: Token) -> usize {
        assert!(
            !self.watched.contains(&token),
            "closing takes an unwatched socket"
        );
        let (kept, socket) = self.table[token.index()].take().expect("it is kept");
        assert_eq!(kept, token);
        socket
    }

    fn spawn(&mut self, index: usize) {
        assert!(!self.workers[index].alive && !self.workers[index].unreaped);
        if self.faults && self.rng.u32(0..4) == 0 {
            self.tell(Event::SpawnFailed { worker: index });
            return;
        }
        let Worker { life, ring, .. } = &self.workers[index];
        assert!(
            ring.iter().all(|entry| *entry == Entry::Free),
            "the ring of the dead is clear"
        );
        self.workers[index] = Worker {
            alive: true,
            life: life + 1,
            ..Worker::new()
        };
    }

    fn note(&mut self, what: &str) {
        if !self.happened.contains(what) {
            self.happened.insert(what.to_owned());
        }
    }

    fn close_listeners(&mut self) {
        self.accepting = false;
        self.listening = false;
        for socket in std::mem::take(&mut self.backlog) {
            self.end(socket, End::NotAccepted);
        }
    }
}

impl Worker {
    fn new() -> Worker {
        Worker {
            alive: false,
            unreaped: false,
            life: 0,
            stopped: false,
            said_ready: false,
            draining: false,
            heartbeat: 0,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            holding: Vec::new(),
            ring: [Entry::Free; RING],
            wants_writable: false,
        }
    }

    /// What the ring says about `seq`.
    fn entry(&self, seq: u64) -> Entry {
        self.ring[seq as usize % RING]
    }

    fn load(&self, sockets: &[Socket]) -> Load {
        let active = self
            .holding
            .iter()
            .filter(|(socket, _)| sockets[*socket].pending)
            .count() as u32;
        let held = self.holding.len() as u32;
        Load {
            heartbeat_ms: self.heartbeat,
            active,
            held,
            busy: held.min(10) * 100,
        }
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "now {} held {} queued {}",
            self.now,
            self.mind.held(),
            self.mind.queued()
        )?;
        for (index, worker) in self.workers.iter().enumerate() {
            let Worker {
                alive,
                unreaped,
                stopped,
                draining,
                ..
            } = worker;
            let (inbox, outbox, holding) = (
                worker.inbox.len(),
                worker.outbox.len(),
                &worker.holding.len(),
            );
            write!(
                f,
                "worker {index}: alive {alive} unreaped {unreaped} stopped {stopped} draining {draining}"
            )?;
            writeln!(f, " inbox {inbox} outbox {outbox} holding {holding}")?;
        }
        write!(f, "{:?}", self.mind)
    }
}
