//! The decoder of Packer's output: every line is some event.

#![no_main]

use libfuzzer_sys::fuzz_target;

// By its path: the runner's other parts bring the AWS SDK with them.
#[expect(dead_code, reason = "the runner uses more of it")]
#[path = "../../runner/src/packer_output.rs"]
mod packer_output;

fuzz_target!(|line: &str| {
    let _ = packer_output::decode(line);
});
