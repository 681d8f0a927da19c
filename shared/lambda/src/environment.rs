//! Settings from the environment. The only place where a function reads it.

use ciab_core::settings::{InvalidSetting, Settings};
use jiff::SignedDuration;

/// The settings that every function shares.
///
/// # Errors
/// Names the first that is missing or impossible.
pub fn settings() -> Result<Settings, InvalidSetting> {
    Settings::read(|name| std::env::var(name).ok())
}

/// One variable of the environment.
///
/// # Errors
/// Names it where it is not set, or empty.
pub fn variable(name: &'static str) -> Result<String, InvalidSetting> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(InvalidSetting::Missing { name })
}

/// A whole number of seconds from the environment.
///
/// # Errors
/// Names it where it is not set, or no such number.
pub fn seconds(name: &'static str) -> Result<SignedDuration, InvalidSetting> {
    let given = variable(name)?;
    match given.parse::<u32>() {
        Ok(seconds) => Ok(SignedDuration::from_secs(i64::from(seconds))),
        Err(_) => Err(InvalidSetting::Impossible {
            name,
            given,
            allowed: "a whole number of seconds is expected".to_owned(),
        }),
    }
}
