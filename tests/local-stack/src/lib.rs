//! Starts `ciab-local` as a child and looks at it as a user would: what the demo, the benchmarks and the end-to-end tests
//! share.
//!
//! It must never share code with what it drives, and it keeps its dependencies few, since `xtask` depends on it and is what
//! a fresh machine compiles first.

pub mod ec2_api;
pub mod ec2_inventory;
pub mod http_client;
pub mod interruption;
pub mod json_api;
pub mod process;
pub mod stack;

pub use ec2_api::Ec2Api;
pub use ec2_inventory::Inventory;
pub use json_api::JsonApi;
pub use stack::{Stack, StackParts};
