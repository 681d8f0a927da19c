//! No code: dependencies alone, for the features that they switch on.
//!
//! `sam build` has Cargo build each function by itself, with the features that this function and what it depends on ask for. Where
//! two ask for others of a crate below the AWS SDK, all of the SDK is compiled twice, which is most of what such a build
//! does. So `ciab-aws` depends on this. Must never hold anything that a program runs.
