//! Ctrl-C and its relatives become a flag that every wait looks at, so that what was started is stopped by the code
//! that started it, on the way out. Nothing here may end the process itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Starts to listen for SIGINT, SIGTERM and SIGHUP.
pub fn listen() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED)).context("listen for signals")?;
    }
    Ok(())
}

/// Whether someone asked to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Sleeps, or fails at once if someone asked to stop.
pub fn pause(duration: Duration) -> Result<()> {
    if interrupted() {
        bail!("stopped by a signal");
    }
    std::thread::sleep(duration);
    Ok(())
}
