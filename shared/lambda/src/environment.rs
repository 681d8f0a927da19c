//! Settings from the environment. The only place where a function reads it.

use ciab_core::settings::{InvalidSetting, Settings};

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
