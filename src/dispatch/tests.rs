use super::*;

fn settings(workers: usize) -> Settings {
    Settings {
        workers,
        priorities: vec![0, 1],
        queue_capacity: 100,
        ageing_ms: 100,
        idle_timeout_ms: 60_000,
        max_active: 1_000,
        shutdown_timeout_ms: 30_000,
        descriptors: 1_000,
        reserve: 100,
    }
}

/// A mind whose workers are all ready at time 0.
fn serving(settings: Settings) -> Dispatch {
    let mut mind = Dispatch::new(settings);
    let mut out = Vec::new();
    mind.start(0, &mut out);
    let workers = mind.settings.workers;
    assert_eq!(
        out,
        (0..workers)
            .map(|worker| Action::Spawn { worker })
            .collect::<Vec<_>>()
    );
    out.clear();
    for worker in 0..workers {
        mind.on(Event::Ready { worker }, 0, &mut out);
    }
    assert_eq!(out, [Action::Serve]);
    mind
}

fn on(mind: &mut Dispatch, event: Event, now: u64) -> Vec<Action> {
    let mut out = Vec::new();
    mind.on(event, now, &mut out);
    mind.check_invariants();
    out
}

fn pass(mind: &mut Dispatch, loads: &[Load], now: u64) -> Vec<Action> {
    let mut out = Vec::new();
    mind.pass(loads, now, &mut out);
    mind.check_invariants();
    out
}

fn arrive(mind: &mut Dispatch, listener: u16, ready: bool, now: u64) -> (Token, Vec<Action>) {
    let token = mind.admit(Conn::accepted(
        "192.0.2.1:1".parse().unwrap(),
        listener,
        now,
    ));
    (token, on(mind, Event::Arrived { token, ready }, now))
}

/// Workers that have just come around, with so many connections each.
fn held(held: &[u32], now: u64) -> Vec<Load> {
    held.iter()
        .map(|&held| Load {
            heartbeat_ms: now,
            active: 0,
            held,
            busy: 0,
        })
        .collect()
}

fn offered_to(actions: &[Action]) -> Vec<usize> {
    actions
        .iter()
        .filter_map(|action| {
            if let Action::Offer { worker, .. } = action {
                Some(*worker)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn a_silent_connection_waits_and_a_ready_one_is_offered() {
    let mut mind = serving(settings(1));
    let (silent, actions) = arrive(&mut mind, 0, false, 10);
    assert_eq!(actions, [Action::Watch(silent)]);
    let (ready, actions) = arrive(&mut mind, 0, true, 10);
    assert!(actions.is_empty());
    assert_eq!(
        pass(&mut mind, &held(&[0], 12), 12),
        [Action::Offer {
            worker: 0,
            seq: 1,
            token: ready
        }]
    );
    assert_eq!(mind.conn(ready).unwrap().queued_ms, 2);
    assert_ne!(mind.conn(ready).unwrap().id, mind.conn(silent).unwrap().id);
    assert_eq!(mind.open_offers(0).collect::<Vec<_>>(), [1]);

    let actions = on(&mut mind, Event::Claimed { worker: 0, seq: 1 }, 13);
    assert_eq!(actions, [Action::Release(ready)]);
    assert_eq!(mind.held(), 1);
    assert_eq!(
        on(&mut mind, Event::Readable(silent), 14),
        [Action::Unwatch(silent)]
    );
    assert_eq!(
        on(&mut mind, Event::HungUp(silent), 14),
        [],
        "it is not parked any more"
    );
    assert_eq!(offered_to(&pass(&mut mind, &held(&[0], 14), 14)), [0]);
}

#[test]
fn the_worker_with_most_room_is_chosen_and_ties_go_round() {
    let mut mind = serving(settings(3));
    for _ in 0..6 {
        arrive(&mut mind, 0, true, 10);
    }
    assert_eq!(
        offered_to(&pass(&mut mind, &held(&[2, 0, 2], 10), 10)),
        [1, 1, 2, 0, 1, 2]
    );
}

#[test]
fn a_busy_worker_is_passed_over_while_another_is_not() {
    let mut mind = serving(settings(2));
    let mut loads = held(&[0, 50], 10);
    loads[0].busy = 901;
    loads[1].busy = 699;
    arrive(&mut mind, 0, true, 10);
    assert_eq!(offered_to(&pass(&mut mind, &loads, 10)), [1]);
    loads[1].busy = 700;
    arrive(&mut mind, 0, true, 10);
    assert_eq!(offered_to(&pass(&mut mind, &loads, 10)), [0]);
}

#[test]
fn a_worker_that_has_not_come_around_gets_nothing_while_another_has() {
    let mut mind = serving(settings(2));
    let mut loads = held(&[0, 90], 1_000);
    loads[0].heartbeat_ms = 499;
    for _ in 0..20 {
        arrive(&mut mind, 0, true, 1_000);
    }
    let offered = offered_to(&pass(&mut mind, &loads, 1_000));
    assert_eq!(
        offered,
        [1; worker::CREDIT],
        "the rest waits for the fresh one"
    );
    assert_eq!(mind.queued(), 4);
    loads[1].heartbeat_ms = 499;
    assert_eq!(
        offered_to(&pass(&mut mind, &loads, 1_000)),
        [0; 4],
        "all alike: better one of them than none"
    );
}

#[test]
fn requests_in_progress_are_bounded() {
    let mut mind = serving(Settings {
        max_active: 5,
        ..settings(1)
    });
    for _ in 0..9 {
        arrive(&mut mind, 0, true, 10);
    }
    let mut loads = held(&[0], 10);
    loads[0].active = 2;
    assert_eq!(offered_to(&pass(&mut mind, &loads, 10)).len(), 3);
    assert_eq!(
        mind.next_wake(10),
        10 + QUEUE_WAKE_MS,
        "shared memory wakes nobody"
    );
}

#[test]
fn a_full_queue_refuses_the_worst_placed() {
    let mut mind = serving(Settings {
        queue_capacity: 2,
        ..settings(1)
    });
    let (first, _) = arrive(&mut mind, 0, true, 10);
    let (second, actions) = arrive(&mut mind, 0, true, 11);
    assert!(actions.is_empty());
    let (_, actions) = arrive(&mut mind, 1, true, 12);
    assert_eq!(actions, [Action::Refuse(second)]);
    let (third, actions) = arrive(&mut mind, 0, true, 13);
    assert_eq!(actions, [Action::Refuse(third)]);
    assert_eq!((mind.queued(), mind.held()), (2, 2));
    assert!(mind.conn(first).is_some());
}

/// A stream of important requests, more than the worker can take: a lesser one is served all the same.
#[test]
fn a_low_priority_is_served_in_bounded_time() {
    let mut mind = serving(settings(1));
    let mut loads = held(&[0], 0);
    for _ in 0..3 {
        arrive(&mut mind, 1, true, 0);
    }
    let (lesser, _) = arrive(&mut mind, 0, true, 0);
    // Every 10 ms one is served and one more important comes.
    let served = (1..50).map(|round| round * 10).find(|&now| {
        arrive(&mut mind, 1, true, now);
        loads[0] = Load {
            heartbeat_ms: now,
            active: 999,
            held: 0,
            busy: 0,
        };
        let actions = pass(&mut mind, &loads, now);
        let [Action::Offer { seq, token, .. }] = actions[..] else {
            panic!("{actions:?}")
        };
        on(&mut mind, Event::Claimed { worker: 0, seq }, now);
        token == lesser
    });
    // One step of priority is worth 100 ms; what came in that time goes first, at 10 ms each.
    assert!(
        served.is_some_and(|now| (100..=150).contains(&now)),
        "{served:?}"
    );
}

#[test]
fn an_unclaimed_offer_is_taken_back_and_goes_elsewhere() {
    let mut mind = serving(settings(2));
    let (token, _) = arrive(&mut mind, 0, true, 1_000);
    let loads = held(&[0, 5], 1_000);
    assert_eq!(offered_to(&pass(&mut mind, &loads, 1_000)), [0]);
    assert_eq!(mind.next_wake(1_000), 1_000 + OFFER_WAKE_MS);
    let mut loads = held(&[0, 5], 1_500);
    loads[0].heartbeat_ms = 1_000;
    assert_eq!(
        pass(&mut mind, &loads, 1_500),
        [Action::Revoke { worker: 0, seq: 1 }]
    );
    on(&mut mind, Event::Revoked { worker: 0, seq: 1 }, 1_500);
    assert_eq!(
        pass(&mut mind, &loads, 1_500),
        [Action::Offer {
            worker: 1,
            seq: 1,
            token
        }]
    );

    // It gets nothing, although it has most room, until it comes around; then one at a time.
    for _ in 0..3 {
        arrive(&mut mind, 0, true, 1_500);
    }
    assert_eq!(offered_to(&pass(&mut mind, &loads, 1_500)), [1, 1, 1]);
    let loads = held(&[0, 50], 1_600);
    for _ in 0..3 {
        arrive(&mut mind, 0, true, 1_600);
    }
    assert_eq!(offered_to(&pass(&mut mind, &loads, 1_600)), [0, 1, 1]);
}

#[test]
fn a_death_gives_back_what_was_not_claimed_and_is_answered_at_once() {
    let mut mind = serving(settings(1));
    let (first, _) = arrive(&mut mind, 0, true, 20_000);
    let (second, _) = arrive(&mut mind, 0, true, 20_001);
    let (third, _) = arrive(&mut mind, 0, true, 20_002);
    pass(&mut mind, &held(&[0], 20_002), 20_002);
    on(&mut mind, Event::Claimed { worker: 0, seq: 2 }, 20_003);
    assert!(mind.conn(second).is_none());
    let actions = on(&mut mind, Event::Died { worker: 0 }, 20_010);
    assert_eq!(
        actions,
        [Action::Bury { worker: 0 }, Action::Spawn { worker: 0 }]
    );
    assert_eq!(mind.queued(), 2);
    on(&mut mind, Event::Ready { worker: 0 }, 20_020);
    let actions = pass(&mut mind, &held(&[0], 20_020), 20_020);
    let again = [
        Action::Offer {
            worker: 0,
            seq: 4,
            token: first,
        },
        Action::Offer {
            worker: 0,
            seq: 5,
            token: third,
        },
    ];
    assert_eq!(actions, again);

    // It dies again before it has been healthy for long: this time there is a pause.
    assert_eq!(
        on(&mut mind, Event::Died { worker: 0 }, 20_030),
        [Action::Bury { worker: 0 }]
    );
    assert_eq!(mind.next_wake(20_100), 20_110);
    assert_eq!(pass(&mut mind, &held(&[0], 0), 20_129), []);
    assert_eq!(
        pass(&mut mind, &held(&[0], 0), 20_130),
        [Action::Spawn { worker: 0 }]
    );
}

#[test]
fn a_worker_that_cannot_be_started_is_given_up_before_serving_and_never_after() {
    let mut mind = Dispatch::new(settings(1));
    let mut out = Vec::new();
    mind.start(0, &mut out);
    for n in 1..=4_u64 {
        out.clear();
        mind.on(Event::Died { worker: 0 }, n * 10_000, &mut out);
        mind.pass(&held(&[0], 0), n * 10_000 + 5_000, &mut out);
    }
    assert!(out.contains(&Action::GiveUp { worker: 0 }));

    let mut mind = serving(settings(1));
    for n in 1..=9_u64 {
        assert!(
            !on(&mut mind, Event::Died { worker: 0 }, n * 10_000)
                .contains(&Action::GiveUp { worker: 0 })
        );
        pass(&mut mind, &held(&[0], 0), n * 10_000 + 5_000);
    }
}

#[test]
fn idle_connections_time_out_in_order() {
    let mut mind = serving(settings(1));
    let (first, _) = arrive(&mut mind, 0, false, 1_000);
    let (second, _) = arrive(&mut mind, 0, false, 2_000);
    assert_eq!(mind.next_wake(59_000), 61_000);
    let actions = pass(&mut mind, &held(&[0], 61_000), 61_000);
    assert_eq!(
        actions,
        [
            Action::Unwatch(first),
            Action::Close(first, CloseReason::Idle)
        ]
    );
    assert!(mind.conn(second).is_some());
}

#[test]
fn accepting_pauses_before_the_reserve_is_touched() {
    let mut mind = serving(Settings {
        descriptors: 5,
        reserve: 2,
        ..settings(1)
    });
    let tokens: Vec<_> = (0..2).map(|_| arrive(&mut mind, 0, false, 10).0).collect();
    assert!(mind.may_accept());
    let (third, actions) = arrive(&mut mind, 0, false, 10);
    assert_eq!(actions, [Action::Watch(third), Action::PauseAccept]);
    assert!(!mind.may_accept());
    assert_eq!(pass(&mut mind, &held(&[0], 11), 11), []);

    // A socket that comes back takes from the reserve; when that is used up, the idlest gives way.
    let mut out = Vec::new();
    assert!(mind.make_room(2, &mut out));
    assert!(out.is_empty());
    assert!(mind.make_room(3, &mut out));
    assert_eq!(
        out,
        [
            Action::Unwatch(tokens[0]),
            Action::Close(tokens[0], CloseReason::Room)
        ]
    );
    assert_eq!(pass(&mut mind, &held(&[0], 12), 12), [Action::ResumeAccept]);
    assert!(mind.may_accept());

    assert_eq!(
        on(&mut mind, Event::AcceptFailed, 20),
        [Action::PauseAccept]
    );
    assert_eq!(mind.next_wake(20), 20 + ACCEPT_RETRY_MS);
    assert_eq!(pass(&mut mind, &held(&[0], 21), 21), []);
    assert_eq!(
        pass(&mut mind, &held(&[0], 120), 120),
        [Action::ResumeAccept]
    );
}

#[test]
fn a_graceful_stop_serves_the_queue_then_drains() {
    let mut mind = serving(settings(1));
    let (parked, _) = arrive(&mut mind, 0, false, 10);
    let (queued, _) = arrive(&mut mind, 0, true, 10);
    let actions = on(&mut mind, Event::Shutdown(Shutdown::Graceful), 20);
    let ends = [
        Action::CloseListeners,
        Action::Unwatch(parked),
        Action::Close(parked, CloseReason::Stopping),
    ];
    assert_eq!(actions, ends);
    assert_eq!(
        pass(&mut mind, &held(&[0], 20), 20),
        [Action::Offer {
            worker: 0,
            seq: 1,
            token: queued
        }]
    );
    on(&mut mind, Event::Claimed { worker: 0, seq: 1 }, 21);
    assert_eq!(
        pass(&mut mind, &held(&[1], 21), 21),
        [Action::Drain { worker: 0 }]
    );
    let (late, actions) = arrive(&mut mind, 0, true, 22);
    assert_eq!(actions, [Action::Refuse(late)]);
    assert_eq!(mind.next_wake(25_000), 25_000 + SUPERVISE_WAKE_MS);
    assert_eq!(mind.next_wake(29_000), 20 + 30_000);
    let killed = Action::Kill {
        worker: 0,
        reason: KillReason::ShutdownTimeout,
    };
    assert_eq!(pass(&mut mind, &held(&[1], 30_020), 30_020), [killed]);
    on(&mut mind, Event::Died { worker: 0 }, 30_021);
    assert_eq!(
        pass(&mut mind, &held(&[0], 30_021), 30_021),
        [Action::Finished]
    );
    assert_eq!(mind.held(), 0);
}

#[test]
fn numbers_of_unknown_workers_and_offers_are_ignored() {
    let mut mind = serving(settings(1));
    for event in [
        Event::Claimed { worker: 7, seq: 1 },
        Event::Claimed { worker: 0, seq: 1 },
        Event::Revoked {
            worker: 0,
            seq: u64::MAX,
        },
        Event::Unsent {
            worker: 9,
            seq: 0,
            retry: Retry::Later,
        },
        Event::Writable { worker: 9 },
        Event::Ready { worker: 9 },
        Event::Died { worker: 9 },
        Event::Misbehaved { worker: 9 },
        Event::Readable(Token::from(u64::MAX)),
        Event::HungUp(Token::from(3)),
        Event::Arrived {
            token: Token::from(3),
            ready: true,
        },
    ] {
        assert_eq!(on(&mut mind, event, 10), [], "{event:?}");
    }
    let killed = Action::Kill {
        worker: 0,
        reason: KillReason::Misbehaved,
    };
    assert_eq!(
        on(&mut mind, Event::Ready { worker: 0 }, 10),
        [killed],
        "nobody is ready twice"
    );
}
