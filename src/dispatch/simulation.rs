//! The mind against a seeded world: clients that come, ask and leave, workers that claim, serve, return, stop, wake
//! and die at any moment, channels that are full, rings that race. After every step a model that knows who owns
//! each socket is compared with what the mind believes.
//!
//! What must hold, whatever happens: no socket is lost, none is owned twice, no request is answered twice, nobody
//! waits for ever once the world is well again, and every descriptor is counted back.
//!
//! A failing seed is printed; `SEED=n cargo test dispatch::simulation` runs that one alone.

mod world;

use std::collections::BTreeSet;

use super::Shutdown;
use world::World;

const SEEDS: u64 = 512;
const STEPS: usize = 500;

/// Rounds in which a world that is well again must come to rest; each is 50 ms of its time.
const ROUNDS: usize = 2_000;

/// Names the seed when a check below panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation failed with SEED={}", self.0);
        }
    }
}

/// Runs every seed (or the one asked for), and checks that between them the worlds have seen all of `expected`.
fn for_all_seeds(expected: &[&str], run: impl Fn(&mut World)) {
    let only = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let mut happened = BTreeSet::new();
    for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let _named = Named(seed);
        let mut world = World::new(seed);
        run(&mut world);
        happened.append(&mut world.happened);
    }
    for what in expected.iter().filter(|_| only.is_none()) {
        assert!(
            happened.contains(*what),
            "no seed has seen {what:?}, only {happened:?}"
        );
    }
}

#[test]
fn no_socket_is_lost_or_owned_twice_and_nobody_starves() {
    let expected = [
        "Bury",
        "HungUp",
        "Idle",
        "Misbehaved",
        "NeverReady",
        "PauseAccept",
        "Refuse",
        "Release",
        "ResumeAccept",
        "Revoke",
        "Room",
        "Spawn",
        "Stuck",
        "Unwatch",
        "Watch",
        "claimed before it was revoked",
        "claimed by a dead worker",
        "lost with its worker",
        "offered to a dead worker",
        "revoked before it was claimed",
        "woke up too late",
    ];
    for_all_seeds(&expected, |world| {
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        world.heal();
        rounds(world, "every request is answered", World::is_served);
        world.leave_all();
        rounds(world, "every descriptor is counted back", World::is_empty);
    });
}

#[test]
fn a_graceful_stop_ends_with_nothing_left() {
    let expected = [
        "CloseListeners",
        "Drain",
        "Finished",
        "ShutdownTimeout",
        "Stopping",
    ];
    for_all_seeds(&expected, |world| {
        let until = world.below(STEPS);
        for step in 0..STEPS {
            world.step();
            if step == until {
                world.shut_down(Shutdown::Graceful);
            }
            world.check();
        }
        world.heal();
        rounds(world, "the end is reported", |world| {
            world.finished && world.is_empty()
        });
    });
}

#[test]
fn a_stop_at_once_ends_soon_with_nothing_left() {
    for_all_seeds(&["Finished", "ShutdownTimeout", "Stop"], |world| {
        for _ in 0..STEPS / 4 {
            world.step();
        }
        // Ctrl-C, or a second TERM on top of the first; workers may be stopped and stay so.
        let how = if world.below(2) == 0 {
            Shutdown::AtOnce
        } else {
            Shutdown::Graceful
        };
        world.shut_down(how);
        world.wake_master();
        world.shut_down(how);
        let asked = world.now;
        rounds(world, "the end is reported", |world| {
            world.finished && world.is_empty()
        });
        assert!(
            world.now - asked < 2_000,
            "it took {} ms",
            world.now - asked
        );
    });
}

/// Lets the world go on without new trouble until `done`.
fn rounds(world: &mut World, goal: &str, done: impl Fn(&World) -> bool) {
    for _ in 0..ROUNDS {
        if done(world) {
            return;
        }
        world.round();
        world.check();
    }
    panic!("{goal}: not after {ROUNDS} rounds\n{world}");
}
