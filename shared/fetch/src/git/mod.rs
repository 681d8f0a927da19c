//! A file or folder of a git repository, at one commit.
//!
//! gitoxide's parts speak the protocol and read the pack. There is no repository: nothing is configured, checked out or
//! run, and what is written, the pack and its index, stands in a folder that goes away with the fetch.

mod references;
mod smart_http;
mod tree;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ciab_core::ports::{FetchError, Fetched};
use ciab_core::template_hosts::host_and_port;
use ciab_template::GitSource;
use gix_error::ErrorExt as _;
use gix_hash::{Kind, ObjectId};
use gix_protocol::fetch::negotiate::{Action, Round, one_round};
use gix_protocol::fetch::{Arguments, Context, Negotiate, Options, Response, Shallow, Tags};
use gix_protocol::handshake::Ref;
use gix_protocol::ls_refs::RefPrefixes;
use gix_protocol::{Handshake, LsRefsCommand};
use gix_transport::client::blocking_io::http::Transport;
use gix_transport::{Protocol, Service};
use gix_utils::progress::Discard;

use crate::client::{Client, too_slow};
use references::{Target, Wanted};
use smart_http::{Exchange, SmartHttp};
use tree::Objects;

/// Fetches a path of a repository, unless its commit is `known`. Gives up early once `stop` is set.
///
/// # Errors
///
/// Where the repository or the commit is not to be had, or what it holds is no template.
pub(crate) fn fetch(
    client: Client,
    source: &GitSource,
    known: Option<&str>,
    stop: &AtomicBool,
) -> Result<Fetched, FetchError> {
    let wanted = Wanted::of(source.reference.as_deref());
    client.dialler.check(&source.url)?;
    if let Wanted::Commit(id) = &wanted
        && known == Some(id.to_hex().to_string().as_str())
    {
        // What a commit holds never changes.
        return Ok(Fetched::Unchanged);
    }
    let limits = client.limits;
    let folder = tempfile::Builder::new().prefix("ciab-git-").tempdir();
    let folder =
        folder.map_err(|_| FetchError::Unavailable("there is no room to fetch a repository to".into()))?;
    let mut server = Server::connect(client, source)?;
    let target = server.find(&wanted)?;
    let commit = target.commit.to_hex().to_string();
    if known == Some(commit.as_str()) {
        return Ok(Fetched::Unchanged);
    }
    let pack = server.fetch(target, matches!(wanted, Wanted::Commit(_)), folder.path(), stop)?;
    let bundle = Objects::new(pack, limits.object_bytes, stop)
        .bundle(&target.commit, source.path.as_deref(), limits.unpacked)
        .map_err(|error| FetchError::Refused(format!("`git::{}`: {error}", source.url)))?;
    Ok(Fetched::Bundle { bundle, validator: Some(commit) })
}

/// A server, greeted.
struct Server {
    host: String,
    client: Arc<Client>,
    exchange: Exchange,
    transport: Transport<SmartHttp>,
    handshake: Handshake,
}

fn agent() -> gix_protocol::command::Feature {
    ("agent", Some(concat!("ciab-images/", env!("CARGO_PKG_VERSION")).into()))
}

impl Server {
    fn connect(client: Client, source: &GitSource) -> Result<Self, FetchError> {
        let host = host_and_port(&source.url);
        let client = Arc::new(client);
        let exchange = Exchange::new(client.clone());
        let url = source.url.as_str().try_into().map_err(|_| {
            FetchError::Refused(format!("no git repository can be at this address of `{host}`"))
        })?;
        let http = SmartHttp::new(exchange.clone(), &source.url);
        let mut transport = Transport::new_http(http, url, Protocol::V2, false);
        // Nobody is asked for credentials: the client has the one there is.
        let greeted = gix_protocol::handshake(
            &mut transport,
            Service::UploadPack,
            |_| Ok(None),
            Vec::new(),
            &mut Discard,
        );
        let handshake = greeted.map_err(|_| {
            exchange.failure().unwrap_or_else(|| {
                FetchError::Refused(format!(
                    "`{host}` did not answer as a git server at the repository's address"
                ))
            })
        })?;
        let format = handshake.capabilities.capability("object-format");
        if format.and_then(|format| format.value().map(|value| value != "sha1")).unwrap_or_default() {
            return Err(FetchError::Refused(format!(
                "the repository at `{host}` does not name its objects by SHA-1"
            )));
        }
        Ok(Self { host, client, exchange, transport, handshake })
    }

    fn find(&mut self, wanted: &Wanted) -> Result<Target, FetchError> {
        let listed = self.list(wanted)?;
        wanted.find(&listed).map_err(|error| FetchError::Refused(format!("`{}`: {error}", self.host)))
    }

    fn list(&mut self, wanted: &Wanted) -> Result<Vec<Ref>, FetchError> {
        if let Some(listed) = self.handshake.refs.take() {
            return Ok(listed);
        }
        let names = wanted.names();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut prefixes = RefPrefixes::new();
        prefixes.extend(names);
        let command = LsRefsCommand::new(Some(prefixes), &self.handshake.capabilities, agent());
        let listed = command.invoke_blocking(&mut self.transport, &mut Discard, false);
        listed.map_err(|_| {
            self.failed(|host| format!("the branches and tags that `{host}` lists can't be read"))
        })
    }

    /// The commit's own objects, as a pack in `folder`.
    fn fetch(
        &mut self,
        target: Target,
        is_commit: bool,
        folder: &Path,
        stop: &AtomicBool,
    ) -> Result<gix_pack::Bundle, FetchError> {
        let mut received = None;
        let object_bytes = self.client.limits.object_bytes;
        let fetched = gix_protocol::fetch(
            &mut One(target.asked),
            |pack, progress, stop| {
                received = Some(write(pack, progress, folder, object_bytes, stop));
                Ok(matches!(received, Some(Ok(_))))
            },
            Discard,
            stop,
            Context {
                handshake: &mut self.handshake,
                transport: &mut self.transport,
                user_agent: agent(),
                trace_packetlines: false,
            },
            Options {
                shallow_file: folder.join("shallow"),
                shallow: &Shallow::DepthAtRemote(NonZeroU32::MIN),
                tags: Tags::None,
                reject_shallow_remote: false,
            },
        );
        // A server of the first protocol refuses a commit where its pack would begin.
        let is_first = self.handshake.server_protocol_version != Protocol::V2;
        match (received, fetched) {
            (Some(Ok(pack)), Ok(_)) => Ok(pack),
            (received, _) if is_commit && (received.is_none() || is_first) => Err(self.failed(|host| {
                format!("`{host}` does not give out the commit {}: name a branch or a tag instead", target.commit)
            })),
            (Some(Err(_)), _) => Err(self.failed(|host| {
                format!("the pack that `{host}` sent can't be read, or an object in it is larger than {object_bytes} bytes")
            })),
            _ => Err(self.failed(|host| format!("what `{host}` answered can't be read"))),
        }
    }

    /// Our own reason where there is one, else what git makes of it.
    fn failed(&self, otherwise: impl FnOnce(&str) -> String) -> FetchError {
        let slow = || self.client.is_over().then(|| too_slow(&self.host));
        self.exchange.failure().or_else(slow).unwrap_or_else(|| FetchError::Refused(otherwise(&self.host)))
    }
}

fn write(
    pack: &mut dyn std::io::BufRead,
    progress: &mut dyn gix_utils::progress::DynNestedProgress,
    folder: &Path,
    object_bytes: usize,
    stop: &AtomicBool,
) -> gix_error::Result<gix_pack::Bundle> {
    let options = gix_pack::bundle::write::Options {
        thread_limit: Some(1),
        iteration_mode: gix_pack::data::input::Mode::Verify,
        alloc_limit_bytes: Some(object_bytes),
        ..Default::default()
    };
    let nowhere = None::<gix_object::find::Never>;
    let written = gix_pack::Bundle::write_to_directory(
        pack,
        Some(folder),
        progress,
        stop,
        nowhere,
        Kind::Sha1,
        options,
    )?;
    written.to_bundle().unwrap_or_else(|| Err(gix_error::message("the pack is empty").raise()))
}

/// Asks for one object: there is nothing that we have, so that there is nothing to negotiate.
struct One(ObjectId);

impl Negotiate for One {
    fn mark_complete_and_common_ref(&mut self) -> gix_error::Result<Action> {
        Ok(Action::MustNegotiate { remote_ref_target_known: vec![false] })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _: &[bool]) -> bool {
        arguments.want(self.0);
        true
    }

    fn one_round(
        &mut self,
        _: &mut one_round::State,
        _: &mut Arguments,
        _: Option<&Response>,
    ) -> gix_error::Result<(Round, bool)> {
        let round = Round {
            haves_sent: 0,
            in_vain: 0,
            haves_to_send: 0,
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}
