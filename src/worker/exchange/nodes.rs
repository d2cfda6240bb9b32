//! Step 4, behind the herd of this node: whether another node is asking for the same.
//!
//! What it gets is waited for, as long as it holds its lease and for the patience at most; then it is in the store, or this node asks as
//! well. Whoever has waited in vain does not make the next one wait.

use std::time::Duration;

use tokio::time::Instant;

use super::Fetch;
use super::lookup::{self, Looked};
use crate::store::postgres::{Lease, Turn};
use crate::worker::context::Context;

/// How long another node is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks, at first and at last.
const FIRST: Duration = Duration::from_millis(20);
const LAST: Duration = Duration::from_millis(200);

pub enum Turned {
    /// The origin server is asked, under the lease if there is one.
    Ask(Option<Lease>),
    /// As the store says now.
    Look(Box<Looked>),
}

pub async fn take_turn(context: &Context, fetch: &mut Fetch) -> Turned {
    let store = context.store.as_ref().and_then(|store| store.of_nodes());
    let (Some(store), Some(key)) = (store, fetch.plan.key.clone()) else {
        return Turned::Ask(None);
    };
    let lease = match store.take_turn(key.as_bytes()).await {
        Turn::Mine(lease) => return Turned::Ask(lease),
        Turn::Look(lease) => Some(lease),
        Turn::Others => {
            let until = Instant::now() + PATIENCE;
            let mut pause = FIRST;
            while Instant::now() < until {
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(LAST);
                if !store.is_asked_for(key.as_bytes()).await {
                    break;
                }
            }
            None
        }
    };
    match lookup::look(context, &fetch.request.head, key, fetch.plan.policy).await {
        Looked::Ask(plan) => {
            fetch.plan = plan;
            Turned::Ask(lease)
        }
        looked => Turned::Look(Box::new(looked)),
    }
}
