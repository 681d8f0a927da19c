//! Invokes the functions that the template schedules, at their rate.
//!
//! Must never let two invocations of one schedule overlap, nor make up for those it missed. Schedules by the time of day are
//! not kept here, and it says so: a stack that somebody tries out at night must not begin to build by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::lambda_host::LambdaHost;
use crate::template::FunctionSpec;

/// Runs until it is dropped; `rate` replaces the template's.
pub(crate) async fn run(functions: Vec<FunctionSpec>, host: Arc<LambdaHost>, rate: Option<Duration>) {
    for (name, cron) in
        functions.iter().filter_map(|function| Some((&function.name, function.cron.as_ref()?)))
    {
        tracing::info!(
            "{name} is not invoked by its schedule {cron} here: `ciab schedule run` does its work"
        );
    }
    let scheduled = functions.into_iter().filter_map(|function| {
        let every = rate.or(function.every).filter(|_| function.every.is_some())?;
        Some(invoke_every(every, function.name, Arc::clone(&host)))
    });
    futures::future::join_all(scheduled).await;
}

async fn invoke_every(every: Duration, function: String, host: Arc<LambdaHost>) {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let invoked = host.invoke(&function, Bytes::from(json!({}).to_string())).await;
        if invoked.failed {
            tracing::warn!(function, "failed: {}", String::from_utf8_lossy(&invoked.payload));
        }
    }
}
