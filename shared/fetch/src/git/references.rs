//! Which commit of a repository is meant.
//!
//! Pure: what the server lists goes in. Must never choose where two could be meant.

use bstr::{BString, ByteSlice as _};
use gix_hash::{Kind, ObjectId};
use gix_protocol::handshake::Ref;

/// What a source's `ref` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: the commit that the repository itself puts first.
    Head,
    /// A commit, by its whole id.
    Commit(ObjectId),
    /// A tag or branch, by its short or its full name.
    Named(String),
}

/// A commit, and what has to be asked for to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) commit: ObjectId,
    /// The tag where it is annotated, for servers that give out nothing but what they list.
    pub(super) asked: ObjectId,
}

/// Why no commit is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoCommit {
    #[error("the repository has no commit yet")]
    Empty,
    #[error("the repository has neither a branch nor a tag `{0}`{hint}", hint = hint(.0))]
    Unknown(String),
    #[error("`{0}` is both a branch and a tag of the repository: write `refs/heads/{0}` or `refs/tags/{0}`")]
    Ambiguous(String),
}

fn hint(name: &str) -> &'static str {
    let looks_like_commit = name.len() >= 7 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if looks_like_commit { "; a commit is named by all of its 40 digits" } else { "" }
}

impl Wanted {
    pub(super) fn of(reference: Option<&str>) -> Self {
        match reference {
            None | Some("HEAD") => Self::Head,
            Some(name) => match ObjectId::from_hex(name.as_bytes()) {
                Ok(id) if id.kind() == Kind::Sha1 => Self::Commit(id),
                _ => Self::Named(name.to_owned()),
            },
        }
    }

    /// What the server is asked to list.
    pub(super) fn names(&self) -> Vec<BString> {
        match self {
            Self::Head => vec!["HEAD".into()],
            Self::Commit(_) => Vec::new(),
            Self::Named(name) if name.starts_with("refs/") => vec![name.as_str().into()],
            Self::Named(name) => {
                vec![format!("refs/heads/{name}").into(), format!("refs/tags/{name}").into()]
            }
        }
    }

    /// The commit, by what the server lists.
    pub(super) fn find(&self, listed: &[Ref]) -> Result<Target, NoCommit> {
        let mut found = self.names().into_iter().filter_map(|name| target(listed, &name));
        match (self, found.next(), found.next()) {
            (Self::Commit(id), ..) => Ok(Target { commit: *id, asked: *id }),
            (Self::Head, None, _) => Err(NoCommit::Empty),
            (Self::Named(name), None, _) => Err(NoCommit::Unknown(name.clone())),
            (Self::Named(name), Some(one), Some(other)) if one.commit != other.commit => {
                Err(NoCommit::Ambiguous(name.clone()))
            }
            (_, Some(one), _) => Ok(one),
        }
    }
}

/// What the reference of exactly this name points to. A server lists others too, which begin like it.
fn target(listed: &[Ref], name: &BString) -> Option<Target> {
    listed.iter().find_map(|reference| {
        let (full, commit, asked) = match reference {
            Ref::Direct { full_ref_name, object } => (full_ref_name, *object, *object),
            Ref::Peeled { full_ref_name, tag, object } => (full_ref_name, *object, *tag),
            Ref::Symbolic { full_ref_name, object, tag, .. } => {
                (full_ref_name, *object, tag.unwrap_or(*object))
            }
            Ref::Unborn { .. } => return None,
        };
        (full.as_bstr() == name.as_bstr()).then_some(Target { commit, asked })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> ObjectId {
        ObjectId::from_hex(digit.to_string().repeat(40).as_bytes()).unwrap()
    }

    fn direct(name: &str, digit: char) -> Ref {
        Ref::Direct { full_ref_name: name.into(), object: id(digit) }
    }

    fn listed() -> Vec<Ref> {
        vec![
            Ref::Symbolic {
                full_ref_name: "HEAD".into(),
                target: "refs/heads/main".into(),
                tag: None,
                object: id('1'),
            },
            direct("refs/heads/main2", '2'),
            direct("refs/heads/main", '1'),
            direct("refs/heads/both", '3'),
            direct("refs/tags/both", '4'),
            direct("refs/heads/same", '5'),
            direct("refs/tags/same", '5'),
            Ref::Peeled { full_ref_name: "refs/tags/v1".into(), tag: id('a'), object: id('6') },
        ]
    }

    fn commit(reference: Option<&str>) -> Result<ObjectId, NoCommit> {
        Wanted::of(reference).find(&listed()).map(|target| target.commit)
    }

    #[test]
    fn branches_tags_commits_and_the_head_are_found() {
        for (reference, digit) in [
            (None, '1'),
            (Some("HEAD"), '1'),
            (Some("main"), '1'),
            (Some("refs/heads/main"), '1'),
            (Some("v1"), '6'),
            (Some("same"), '5'),
            (Some("refs/tags/both"), '4'),
            (Some("7777777777777777777777777777777777777777"), '7'),
        ] {
            assert_eq!(commit(reference), Ok(id(digit)), "{reference:?}");
        }
        assert_eq!(
            Wanted::of(Some("v1")).find(&listed()).unwrap().asked,
            id('a'),
            "an annotated tag is asked for itself"
        );
    }

    #[test]
    fn a_name_that_means_none_or_two_is_refused() {
        assert_eq!(commit(Some("mai")), Err(NoCommit::Unknown("mai".into())));
        let message = commit(Some("both")).unwrap_err().to_string();
        assert!(message.contains("refs/heads/both") && message.contains("refs/tags/both"), "{message}");
        let message = commit(Some("77777777")).unwrap_err().to_string();
        assert!(message.contains("40 digits"), "{message}");
        assert_eq!(Wanted::Head.find(&[]), Err(NoCommit::Empty));
    }
}
