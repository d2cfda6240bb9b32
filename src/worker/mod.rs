//! A worker: one event loop that receives sockets from the master, serves them, and hands live ones back.
//!
//! It never listens and never spawns a process. `exchange` is the life of one request, `session` that of one
//! client connection in this process.

mod asked;
mod context;
mod exchange;
mod herd;
mod kept;
mod lobby;
mod meter;
mod peers;
mod returns;
mod session;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::config::Launch;
use crate::ipc::{Channel, Received, ToMaster, ToWorker};
use crate::shared::Region;
use crate::sys::watched::Watched;
use crate::sys::{clock, memory};
use crate::wire::buffers;
use context::Context;
use meter::{Crowd, Meter};

/// How long deliveries may go on when the master is gone.
const ORPHANED: Duration = Duration::from_secs(5);
/// Between two looks at load, logs and idle origin connections.
const TICK: Duration = Duration::from_millis(100);
/// Threads that wait for a disk in place of the loop; each may have a few files open.
const DISK_THREADS: usize = 8;
/// Messages taken before the connections get their turn.
const BURST: usize = 4;

/// Serves until the master says stop or is gone. `channel` is this worker's end of the control socket.
///
/// Errors: the shared memory cannot be used, or a log cannot be opened.
pub fn run(
    channel: Channel,
    worker: usize,
    launch: Launch,
    region: OwnedFd,
) -> anyhow::Result<ExitCode> {
    let region = Region::open(region).context("the shared memory")?;
    crate::log::init(&format!("worker-{worker}"), &launch.config.log)?;
    memory::expect_many_buffers();
    let meter = Rc::new(Meter::new());
    let (parked, unparked) = meter.hooks();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS)
        .on_thread_park(parked)
        .on_thread_unpark(unparked)
        .build_local(Default::default())
        .context("cannot build the event loop")?;
    runtime.block_on(async {
        let context = Rc::new(Context::new(worker, launch, region, channel)?);
        serve(context, meter).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Business (permille) below which the loop has the time to give memory back.
const CALM: u32 = 200;
/// After so many ticks without business, and again after as many, no buffers are kept.
const CALM_TICKS: u32 = 100;

/// What the master's messages come to.
enum Until {
    Drained,
    Stopped,
    Orphaned,
}

async fn serve(context: Rc<Context>, meter: Rc<Meter>) -> anyhow::Result<()> {
    let readable = Watched::new(context.channel.as_fd().try_clone_to_owned()?);
    // First the line, so that whoever sees the master's start-up line finds it.
    log::info!("worker {} ready", context.worker);
    context.say(&ToMaster::Ready).await?;
    tokio::task::spawn_local(tick(context.clone(), meter));
    tokio::task::spawn_local(returns::run(context.clone()));
    let until = receive(&context, &readable).await?;
    let limit = match until {
        Until::Stopped => Duration::ZERO,
        Until::Orphaned => {
            log::warn!("the master is gone: finishing what is in flight");
            ORPHANED
        }
        Until::Drained => context.config.shutdown_timeout,
    };
    if matches!(until, Until::Orphaned)
        && let Some(store) = &context.store
    {
        store.close();
    }
    context.drain();
    let stopped = async {
        // A drain may be cut short by a stop, or by the master's end.
        match until {
            Until::Drained => drop(receive(&context, &readable).await),
            Until::Stopped | Until::Orphaned => std::future::pending().await,
        }
    };
    tokio::select! {
        () = context.idle() => {}
        () = stopped => {}
        () = tokio::time::sleep(limit) => log::warn!("{} connections cut at the end", context.held()),
    }
    context.access_log.borrow_mut().flush();
    Ok(())
}

async fn receive(context: &Rc<Context>, readable: &Watched) -> io::Result<Until> {
    loop {
        let mut guard = readable.registration()?.readable().await?;
        for _ in 0..BURST {
            match context.channel.recv::<ToWorker>() {
                Ok(Received::Message {
                    message,
                    fds,
                    missing,
                }) => match message {
                    ToWorker::Offers(offers) => {
                        // The last descriptors are those that a shortage loses: the master sees no claim for them
                        // and offers them again.
                        if missing > 0 {
                            log::warn!(
                                "{missing} sockets did not arrive: the descriptor limit is reached"
                            );
                        }
                        for (offer, fd) in offers.into_iter().zip(fds) {
                            session::accept(context, offer, fd);
                        }
                    }
                    ToWorker::Introduced => {
                        fds.into_iter()
                            .for_each(|stream| peers::answer(context, stream));
                    }
                    ToWorker::Reopen => {
                        crate::log::reopen();
                        context.access_log.borrow_mut().reopen();
                    }
                    ToWorker::Drain => return Ok(Until::Drained),
                    ToWorker::Stop => return Ok(Until::Stopped),
                    ToWorker::Start { .. } => {
                        log::error!("a second start from the master is disregarded")
                    }
                },
                Ok(Received::Nothing) => {
                    guard.clear_ready();
                    break;
                }
                Ok(Received::End) => return Ok(Until::Orphaned),
                Err(error) => {
                    log::error!("the master's message cannot be used: {error}");
                    return Ok(Until::Orphaned);
                }
            }
        }
        // Connections that are ready get their turn between two bursts.
        tokio::task::yield_now().await;
    }
}

/// Every 100 ms: heartbeat and load for the master, the access log to its file, idle origin connections.
async fn tick(context: Rc<Context>, meter: Rc<Meter>) {
    let mut ticks: u64 = 0;
    let mut crowd = Crowd::default();
    let mut calm: u32 = 0;
    let mut at = Instant::now();
    loop {
        at = (at + TICK).max(Instant::now());
        tokio::time::sleep_until(at).await;
        let busy = meter.busy_permille();
        context.publish_load(busy);
        context.lobby.end_due(clock::coarse_ms());
        if crowd.has_left(context.held()) && busy < CALM {
            context.forget_crowd();
            crowd = Crowd::default();
        }
        calm = if busy < CALM { calm + 1 } else { 0 };
        if calm > 0 && calm.is_multiple_of(CALM_TICKS) {
            buffers::free_all();
        }
        context.access_log.borrow_mut().flush();
        ticks += 1;
        if ticks.is_multiple_of(10) {
            context.pool.borrow_mut().sweep();
            // Not waited for: a disk that hangs must not stop the heartbeat.
            let context = context.clone();
            tokio::task::spawn_local(async move {
                if let Some(store) = &context.store {
                    store.look_after().await;
                }
            });
        }
    }
}
