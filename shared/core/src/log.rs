//! A build's log in the bucket: chunks named by the number of their first line, each written once.
//!
//! Must never assume that a chunk is there: the runner may have died between two of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::BuildId;

/// One line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was printed.
    pub at: Timestamp,
    /// Who printed it: `packer`, `runner`, …
    pub stream: String,
    /// Its text, without the line's end.
    pub text: String,
}

/// Where a build's chunks stand.
pub fn prefix(id: BuildId) -> String {
    format!("builds/{id}/log/")
}

/// The key of the chunk whose first line has this number, counted from 0.
pub fn chunk_key(id: BuildId, first_line: u64) -> String {
    format!("{}{first_line:010}.ndjson", prefix(id))
}

/// The number of a chunk's first line, from its key.
pub fn first_line(key: &str) -> Option<u64> {
    key.rsplit('/').next()?.strip_suffix(".ndjson")?.parse().ok()
}

/// Those of the chunks (in ascending order) that hold the line `offset` or a later one.
pub fn chunks_from(keys: &[String], offset: u64) -> &[String] {
    let later = keys.partition_point(|key| first_line(key).is_none_or(|first| first <= offset));
    &keys[later.saturating_sub(1)..]
}

/// A chunk's lines. One that cannot be read becomes a line that says so, since numbers must stay right.
pub fn read_chunk(bytes: &[u8]) -> Vec<Line> {
    let unreadable = || Line {
        at: Timestamp::UNIX_EPOCH,
        stream: "log".into(),
        text: "(this line could not be read)".into(),
    };
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap_or_else(|_| unreadable()))
        .collect()
}

/// A chunk's bytes.
pub fn write_chunk(lines: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        // A line is a time and two strings: it always has a JSON form.
        if serde_json::to_writer(&mut bytes, line).is_ok() {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunk_that_holds_an_offset_is_found() {
        let id = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let keys: Vec<String> = [0, 10, 25].map(|first| chunk_key(id, first)).into();
        let found = |offset| -> Vec<u64> {
            chunks_from(&keys, offset).iter().filter_map(|key| first_line(key)).collect()
        };
        assert_eq!(found(0), [0, 10, 25]);
        assert_eq!(found(9), [0, 10, 25]);
        assert_eq!(found(10), [10, 25]);
        assert_eq!(found(99), [25]);
        assert!(chunks_from(&[], 5).is_empty());
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written() {
        let line = Line {
            at: "2026-03-25T14:30:00Z".parse().unwrap(),
            stream: "packer".into(),
            text: "a\nb \"c\"".into(),
        };
        assert_eq!(read_chunk(&write_chunk(&[line.clone(), line.clone()])), [line.clone(), line]);
        assert_eq!(read_chunk(b"{\"at\":\nx\n").len(), 2, "what cannot be read keeps its place");
    }
}
