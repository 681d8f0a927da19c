//! A pretend world behind the ports: tables, bucket, state machine, runners and EC2 in memory, with a clock that stands
//! where it is put. Only for tests of the domain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ciab_core::build::{BuildRecord, RunnerKind};
use ciab_core::ids::{BuildId, ImageId, Region};
use ciab_core::image::ImageRecord;
use ciab_core::ports::*;
use ciab_core::resource::{Resource, ResourceKind, tag};
use ciab_core::settings::Settings;
use ciab_core::upload_template::{Announced, PresignedPost};
use ciab_core::{build_image, delete_image, dispatch, poll_builds, prepare_build, reconcile, start_runner};
use ciab_template::{Bundle, TemplateSource};
use jiff::{SignedDuration, Timestamp};

pub(crate) const STACK: &str = "prod";

#[derive(Default)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    pub(crate) builds: BTreeMap<BuildId, BuildRecord>,
    pub(crate) keys: BTreeMap<String, (String, BuildId)>,
    pub(crate) images: BTreeMap<String, ImageRecord>,
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    pub(crate) slots: BTreeSet<BuildId>,
    pub(crate) leases: BTreeMap<String, (String, Timestamp)>,
    pub(crate) executions: BTreeMap<BuildId, ExecutionState>,
    pub(crate) runners: BTreeMap<String, RunnerState>,
    pub(crate) runner_starts: usize,
    pub(crate) resources: Vec<Resource>,
    pub(crate) amis: Vec<CloudImage>,
    /// Who uses which AMI.
    pub(crate) users: BTreeMap<String, BTreeSet<String>>,
    /// How often resources were looked for.
    pub(crate) finds: usize,
    /// Looks for this build's resources are refused.
    pub(crate) refused_for: Option<BuildId>,
    /// Instances take this many looks to shut down.
    pub(crate) shut_down_takes: usize,
    /// The next call of this name fails.
    pub(crate) fail_next: Option<&'static str>,
    /// The next call of this name acts and then does not answer.
    pub(crate) lose_reply_of: Option<&'static str>,
    /// What other people's servers have: content and validator by source.
    pub(crate) servers: BTreeMap<String, Result<(String, Option<String>), FetchError>>,
    /// What was fetched: source, known validator, credential.
    pub(crate) fetches: Vec<(String, Option<String>, Option<String>)>,
    pub(crate) secrets: BTreeMap<String, String>,
    /// Settings beside or in place of the usual ones.
    pub(crate) settings: BTreeMap<&'static str, String>,
    /// How many builds run at once.
    pub(crate) concurrent_builds: u32,
    ids: u128,
}

#[derive(Clone, Default)]
pub(crate) struct World(pub(crate) Arc<Mutex<State>>);

impl World {
    pub(crate) fn new() -> Self {
        let world = Self::default();
        world.state(|state| {
            state.now = "2026-03-25T14:30:00Z".parse().unwrap();
            state.concurrent_builds = 10;
        });
        world
    }

    pub(crate) fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(crate) fn pass(&self, secs: i64) {
        self.state(|state| state.now += SignedDuration::from_secs(secs));
    }

    pub(crate) fn build(&self, id: BuildId) -> BuildRecord {
        self.state(|state| state.builds[&id].clone())
    }

    pub(crate) fn only_build(&self) -> BuildRecord {
        self.state(|state| {
            assert_eq!(state.builds.len(), 1);
            state.builds.values().next().unwrap().clone()
        })
    }

    fn call(&self, name: &'static str) -> Result<(), PortError> {
        self.state(|state| fails(&mut state.fail_next, name))
    }

    fn reply<T>(&self, name: &'static str, reply: T) -> Result<T, PortError> {
        self.state(|state| fails(&mut state.lose_reply_of, name)).map(|()| reply)
    }

    pub(crate) fn settings(&self) -> Settings {
        let concurrent_builds = self.state(|state| state.concurrent_builds).to_string();
        let pairs = BTreeMap::from([
            ("CIAB_CONCURRENT_BUILDS", concurrent_builds.as_str()),
            ("CIAB_STACK", STACK),
            ("CIAB_BUCKET", "bucket"),
            ("CIAB_DEFAULT_REGION", "us-east-1"),
            ("CIAB_BUILD_INSTANCE_TYPE", "t3.medium"),
            ("CIAB_BUILD_TIMEOUT_SECS", "1800"),
            ("CIAB_TEMPLATE_SOURCE", "builtin://default-ec2"),
            ("CIAB_PACKER_VERSION", "1.11.2"),
        ]);
        let own = self.state(|state| state.settings.clone());
        let get =
            |name: &str| own.get(name).cloned().or_else(|| pairs.get(name).map(|value| (*value).to_owned()));
        Settings::read(get).unwrap()
    }

    fn port<T: ?Sized>(&self, coerce: impl FnOnce(Arc<Self>) -> Arc<T>) -> Arc<T> {
        coerce(Arc::new(self.clone()))
    }

    pub(crate) fn build_image(&self) -> build_image::Deps {
        build_image::Deps {
            settings: self.settings(),
            clock: self.port(|w| w as _),
            identifiers: self.port(|w| w as _),
            records: self.port(|w| w as _),
            objects: self.port(|w| w as _),
            workflows: self.port(|w| w as _),
        }
    }

    pub(crate) fn prepare_build(&self) -> prepare_build::Deps {
        prepare_build::Deps {
            settings: self.settings(),
            clock: self.port(|w| w as _),
            records: self.port(|w| w as _),
            objects: self.port(|w| w as _),
            fetcher: self.port(|w| w as _),
            secrets: self.port(|w| w as _),
        }
    }

    pub(crate) fn start_runner(&self) -> start_runner::Deps {
        start_runner::Deps {
            clock: self.port(|w| w as _),
            records: self.port(|w| w as _),
            runners: self.port(|w| w as _),
        }
    }

    pub(crate) fn reconcile(&self) -> reconcile::Deps {
        reconcile::Deps {
            stack: STACK.into(),
            slots: self.state(|state| state.concurrent_builds),
            clock: self.port(|w| w as _),
            records: self.port(|w| w as _),
            objects: self.port(|w| w as _),
            runners: self.port(|w| w as _),
            cloud: self.port(|w| w as _),
            workflows: self.port(|w| w as _),
        }
    }

    pub(crate) fn dispatcher(&self) -> dispatch::Dispatcher {
        self.reconcile().dispatcher()
    }

    pub(crate) fn poll_builds(&self) -> poll_builds::Deps {
        poll_builds::Deps { regions: vec!["us-east-1".parse().unwrap()], reconcile: self.reconcile() }
    }

    pub(crate) async fn poll(&self) -> poll_builds::Output {
        let holder = self.new_holder();
        poll_builds::run(&self.poll_builds(), &holder).await.unwrap()
    }

    /// Polls, a minute apart.
    pub(crate) async fn poll_for_minutes(&self, minutes: usize) {
        for _ in 0..minutes {
            self.pass(60);
            self.poll().await;
        }
    }

    pub(crate) fn delete_image(&self) -> delete_image::Deps {
        delete_image::Deps {
            stack: STACK.into(),
            records: self.port(|w| w as _),
            cloud: self.port(|w| w as _),
        }
    }

    /// What a running Packer has in EC2.
    pub(crate) fn packer_makes(&self, id: BuildId) {
        let mut instance = resource(ResourceKind::Instance, "i-1");
        instance.tags = tags_of(id);
        let mut group = resource(ResourceKind::SecurityGroup, "sg-1");
        group.name = "packer_1".into();
        group.description = "Temporary group for Packer".into();
        group.parents.insert("i-1".into());
        let key = resource(ResourceKind::KeyPair, &format!("ciab-{id}"));
        self.state(|state| state.resources.extend([instance, group, key]));
    }

    /// What there is but for what is gone already.
    pub(crate) fn alive(&self) -> Vec<Resource> {
        self.state(|state| state.resources.iter().filter(|resource| !resource.gone).cloned().collect())
    }

    /// Things of others, that look like ours.
    pub(crate) fn look_alikes(&self) -> Vec<Resource> {
        let mut instance = resource(ResourceKind::Instance, "i-theirs");
        instance.tags = tags_of("00000000-0000-4000-8000-0000000000ff".parse().unwrap());
        instance.tags.insert(tag::STACK.into(), "staging".into());
        let key = resource(ResourceKind::KeyPair, "packer_theirs");
        let theirs = vec![instance, key];
        self.state(|state| state.resources.extend(theirs.clone()));
        theirs
    }

    pub(crate) fn ami_appears(&self, build: BuildId, id: &str, pending: bool) {
        let ami = CloudImage {
            id: id.parse().unwrap(),
            available: !pending,
            pending,
            name: "an image".into(),
            tags: tags_of(build),
            snapshots: vec!["snap-1".into()],
        };
        let mut found = resource(ResourceKind::Image, id);
        (found.tags, found.available) = (ami.tags.clone(), ami.available);
        self.state(|state| {
            state.amis.retain(|other| other.id != ami.id);
            state.amis.push(ami);
            state.resources.retain(|other| other.id != found.id);
            state.resources.push(found);
        });
    }
}

pub(crate) fn tags_of(id: BuildId) -> BTreeMap<String, String> {
    BTreeMap::from([(tag::STACK.to_owned(), STACK.to_owned()), (tag::BUILD_ID.to_owned(), id.to_string())])
}

pub(crate) fn resource(kind: ResourceKind, id: &str) -> Resource {
    Resource::bare(kind, "us-east-1".parse().unwrap(), id)
}

fn fails(armed: &mut Option<&'static str>, name: &'static str) -> Result<(), PortError> {
    if *armed != Some(name) {
        return Ok(());
    }
    *armed = None;
    Err(PortError::Unavailable { service: "world", operation: name, source: "as told".into() })
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.state(|state| state.now)
    }
}

impl Identifiers for World {
    fn new_build_id(&self) -> BuildId {
        self.state(|state| {
            state.ids += 1;
            BuildId::new(uuid::Uuid::from_u128(state.ids))
        })
    }

    fn new_holder(&self) -> String {
        format!("holder {}", self.new_build_id())
    }
}

#[async_trait]
impl Records for World {
    async fn submit(
        &self,
        record: &BuildRecord,
        key: Option<&IdempotencyKey>,
    ) -> Result<Submission, PortError> {
        self.call("submit")?;
        Ok(self.state(|state| {
            if let Some(key) = key {
                if let Some((digest, id)) = state.keys.get(&key.key) {
                    if *digest != key.request_digest {
                        return Submission::KeyReused;
                    }
                    return Submission::Repeated(Box::new(state.builds[id].clone()));
                }
                state.keys.insert(key.key.clone(), (key.request_digest.clone(), record.build_id));
            }
            state.builds.insert(record.build_id, record.clone());
            Submission::Accepted
        }))
    }

    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, PortError> {
        Ok(self.state(|state| state.builds.get(&id).cloned()))
    }

    async fn replace(&self, record: &BuildRecord) -> Result<Write, PortError> {
        self.call("replace")?;
        Ok(self.state(|state| {
            let stored = state.builds.get_mut(&record.build_id).unwrap();
            if stored.revision != record.revision {
                return Write::Conflict;
            }
            assert!(record.status >= stored.status, "a status went back");
            assert!(!stored.status.is_final() || stored.status == record.status, "a final status changed");
            *stored = BuildRecord { revision: record.revision + 1, ..record.clone() };
            Write::Done
        }))
    }

    async fn take_slot(&self, id: BuildId, slots: u32) -> Result<Slot, PortError> {
        self.call("take_slot")?;
        let taken = self.state(|state| {
            if state.slots.contains(&id) {
                return Slot::Held;
            }
            if state.slots.len() >= slots as usize {
                return Slot::Full;
            }
            state.slots.insert(id);
            Slot::Taken
        });
        self.reply("take_slot", taken)
    }

    async fn release_slot(&self, id: BuildId) -> Result<(), PortError> {
        self.call("release_slot")?;
        self.state(|state| state.slots.remove(&id));
        Ok(())
    }

    async fn slots_taken(&self) -> Result<BTreeSet<BuildId>, PortError> {
        Ok(self.state(|state| state.slots.clone()))
    }

    async fn take_lease(&self, lease: &Lease<'_>) -> Result<bool, PortError> {
        Ok(self.state(|state| {
            let free = state
                .leases
                .get(lease.name)
                .is_none_or(|(holder, until)| holder == lease.holder || *until <= lease.now);
            if free {
                state.leases.insert(lease.name.into(), (lease.holder.into(), lease.until));
            }
            free
        }))
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<(), PortError> {
        self.call("release_lease")?;
        self.state(|state| {
            if state.leases.get(name).is_some_and(|(held_by, _)| held_by == holder) {
                state.leases.remove(name);
            }
        });
        Ok(())
    }

    async fn replace_with_images(
        &self,
        record: &BuildRecord,
        images: &[ImageRecord],
    ) -> Result<Write, PortError> {
        let write = self.replace(record).await?;
        if write == Write::Done {
            self.state(|state| {
                let images = images.iter().map(|image| (image.image_id.to_string(), image.clone()));
                state.images.extend(images);
            });
        }
        Ok(write)
    }

    async fn active_builds(&self, _next: Option<&str>) -> Result<Page<BuildRecord>, PortError> {
        let mut items: Vec<BuildRecord> =
            self.state(|state| state.builds.values().filter(|build| build.is_active()).cloned().collect());
        items.sort_by_key(|build| (build.created_at, build.build_id));
        Ok(Page { items, next: None })
    }

    async fn builds(
        &self,
        filter: &BuildFilter,
        limit: u32,
        _next: Option<&str>,
    ) -> Result<Page<BuildRecord>, PortError> {
        let matches = |build: &&BuildRecord| {
            filter.status.is_none_or(|status| status == build.status)
                && filter.provider.is_none_or(|provider| provider == build.provider)
        };
        let mut items: Vec<BuildRecord> =
            self.state(|state| state.builds.values().filter(matches).cloned().collect());
        items.sort_by_key(|build| std::cmp::Reverse((build.created_at, build.build_id)));
        items.truncate(limit as usize);
        Ok(Page { items, next: None })
    }

    async fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, PortError> {
        Ok(self.state(|state| state.images.get(id.as_str()).cloned()))
    }

    async fn images(
        &self,
        filter: &ImageFilter,
        _limit: u32,
        _next: Option<&str>,
    ) -> Result<Page<ImageRecord>, PortError> {
        let matches = |image: &&ImageRecord| {
            filter.region.as_ref().is_none_or(|region| *region == image.region)
                && filter.provider.is_none_or(|provider| provider == image.provider)
        };
        let mut items: Vec<ImageRecord> =
            self.state(|state| state.images.values().filter(matches).cloned().collect());
        items.sort_by_key(|image| std::cmp::Reverse(image.created_at));
        Ok(Page { items, next: None })
    }

    async fn remove_image(&self, image: &ImageRecord) -> Result<(), PortError> {
        self.call("remove_image")?;
        self.state(|state| state.images.remove(image.image_id.as_str()));
        Ok(())
    }

    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for World {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError> {
        Ok(self.state(|state| state.objects.get(key).cloned()))
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), PortError> {
        self.state(|state| state.objects.insert(key.into(), body));
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, PortError> {
        Ok(self.state(|state| state.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()))
    }

    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

#[async_trait]
impl TemplateFetcher for World {
    async fn fetch(
        &self,
        source: &TemplateSource,
        known: Option<&str>,
        credential: Option<&Secret>,
    ) -> Result<Fetched, FetchError> {
        let answer = self.state(|state| {
            let credential = credential.map(|secret| secret.expose().to_owned());
            state.fetches.push((source.to_string(), known.map(str::to_owned), credential));
            state.servers.get(&source.to_string()).cloned()
        });
        match answer {
            Some(Ok((_, validator))) if validator.is_some() && validator.as_deref() == known => {
                Ok(Fetched::Unchanged)
            }
            Some(Ok((content, validator))) => {
                Ok(Fetched::Bundle { bundle: Bundle::from_inline(&content), validator })
            }
            Some(Err(error)) => Err(error),
            None => Err(FetchError::Unavailable("h.example did not answer".into())),
        }
    }
}

#[async_trait]
impl Secrets for World {
    async fn secret(&self, name: &str) -> Result<Option<Secret>, PortError> {
        Ok(self.state(|state| state.secrets.get(name).map(Secret::new)))
    }
}

#[async_trait]
impl Uploads for World {
    async fn presigned_post(&self, announced: &Announced<'_>) -> Result<PresignedPost, PortError> {
        let fields = BTreeMap::from([
            ("key".to_owned(), announced.key.to_owned()),
            ("size".to_owned(), announced.size.to_string()),
        ]);
        Ok(PresignedPost { url: "https://bucket.example/".into(), fields })
    }
}

#[async_trait]
impl Workflows for World {
    async fn start(&self, id: BuildId) -> Result<(), PortError> {
        self.call("start")?;
        self.state(|state| {
            let since = state.now;
            *state.executions.entry(id).or_insert(ExecutionState::Running { since })
        });
        Ok(())
    }

    async fn running(&self) -> Result<BTreeMap<BuildId, Timestamp>, PortError> {
        let running = |(id, execution): (&BuildId, &ExecutionState)| match execution {
            ExecutionState::Running { since } => Some((*id, *since)),
            ExecutionState::Absent | ExecutionState::Ended => None,
        };
        Ok(World::state(self, |state| state.executions.iter().filter_map(running).collect()))
    }

    async fn state(&self, id: BuildId) -> Result<ExecutionState, PortError> {
        Ok(World::state(self, |state| state.executions.get(&id).copied().unwrap_or(ExecutionState::Absent)))
    }

    async fn stop(&self, id: BuildId) -> Result<(), PortError> {
        World::state(self, |state| {
            if let Some(execution) = state.executions.get_mut(&id) {
                *execution = ExecutionState::Ended;
            }
        });
        Ok(())
    }

    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

#[async_trait]
impl Runners for World {
    async fn start(&self, order: &RunnerOrder) -> Result<String, PortError> {
        self.call("start_runner")?;
        let id = format!("runner:{}", order.build_id);
        self.state(|state| {
            state.runner_starts += 1;
            state.runners.insert(id.clone(), RunnerState::Running);
        });
        self.reply("start_runner", id)
    }

    async fn of_builds(
        &self,
        _kind: RunnerKind,
        builds: &BTreeSet<BuildId>,
    ) -> Result<BTreeMap<BuildId, BTreeSet<String>>, PortError> {
        let of = |id: &BuildId| (*id, BTreeSet::from([format!("runner:{id}")]));
        let known = |state: &State, id: &BuildId| state.runners.contains_key(&format!("runner:{id}"));
        Ok(self.state(|state| builds.iter().filter(|id| known(state, id)).map(of).collect()))
    }

    async fn states(&self, ids: &BTreeSet<String>) -> Result<BTreeMap<String, RunnerState>, PortError> {
        Ok(self.state(|state| {
            let state_of = |id: &String| state.runners.get(id).copied().unwrap_or(RunnerState::Absent);
            ids.iter().map(|id| (id.clone(), state_of(id))).collect()
        }))
    }

    async fn stop(&self, id: &str) -> Result<(), PortError> {
        self.state(|state| {
            let at = state.now;
            state.runners.insert(id.into(), RunnerState::Ended { at, reported: false });
        });
        Ok(())
    }
}

#[async_trait]
impl Cloud for World {
    async fn find(&self, _region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError> {
        self.call("find")?;
        let poisoned = |trace: &Trace<'_>| Some(trace.build_id) == self.state(|state| state.refused_for);
        if traces.iter().any(poisoned) {
            let source = "as told".into();
            return Err(PortError::Refused {
                service: "world",
                operation: "find",
                code: "Bad".into(),
                source,
            });
        }
        Ok(self.state(|state| {
            state.finds += 1;
            if state.shut_down_takes == 0 {
                for instance in state.resources.iter_mut().filter(|resource| resource.going) {
                    (instance.going, instance.gone) = (false, true);
                }
            } else {
                state.shut_down_takes -= 1;
            }
            let alive: BTreeSet<String> = state
                .resources
                .iter()
                .filter(|resource| !resource.gone)
                .map(|resource| resource.id.clone())
                .collect();
            let mut found = state.resources.clone();
            for resource in found.iter_mut().filter(|resource| resource.kind == ResourceKind::SecurityGroup) {
                // A group no longer names an instance that is gone.
                resource.parents.retain(|parent| alive.contains(parent));
            }
            found
        }))
    }

    async fn find_copies(&self, region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError> {
        let found = self.find(region, traces).await?;
        Ok(found.into_iter().filter(|resource| resource.region == *region).collect())
    }

    async fn instances(&self, _region: &Region, stack: &str) -> Result<Vec<Resource>, PortError> {
        self.call("instances")?;
        let of_stack = |resource: &&Resource| {
            resource.kind == ResourceKind::Instance
                && resource.tags.get(tag::STACK).is_some_and(|of| of == stack)
        };
        Ok(self.state(|state| state.resources.iter().filter(of_stack).cloned().collect()))
    }

    async fn of_stack(&self, region: &Region, stack: &str) -> Result<Vec<Resource>, PortError> {
        self.call("of_stack")?;
        let of_stack = |resource: &&Resource| {
            !resource.gone
                && resource.region == *region
                && resource.tags.get(tag::STACK).is_some_and(|of| of == stack)
        };
        Ok(self.state(|state| state.resources.iter().filter(of_stack).cloned().collect()))
    }

    async fn users_of(
        &self,
        _region: &Region,
        images: &[ImageId],
    ) -> Result<BTreeMap<ImageId, BTreeSet<String>>, PortError> {
        self.call("users_of")?;
        let users = |id: &ImageId| self.state(|state| state.users.get(id.as_str()).cloned());
        Ok(images.iter().filter_map(|id| Some((id.clone(), users(id)?))).collect())
    }

    async fn delete(&self, resource: &Resource) -> Result<Deletion, PortError> {
        self.call("delete")?;
        let deletion = self.state(|state| {
            if resource.kind == ResourceKind::Instance {
                for other in state.resources.iter_mut().filter(|other| other.id == resource.id) {
                    other.going = !other.gone;
                }
                return Deletion::Going;
            }
            let held_by = |other: &&Resource| !other.gone && resource.parents.contains(&other.id);
            if resource.kind == ResourceKind::SecurityGroup
                && state.resources.iter().any(|other| held_by(&other))
            {
                return Deletion::InUse;
            }
            state.resources.retain(|other| other.id != resource.id);
            state.amis.retain(|ami| ami.id.as_str() != resource.id);
            Deletion::Gone
        });
        self.reply("delete", deletion)
    }

    async fn images(&self, _region: &Region, ids: &[ImageId]) -> Result<Vec<CloudImage>, PortError> {
        Ok(self.state(|state| state.amis.iter().filter(|ami| ids.contains(&ami.id)).cloned().collect()))
    }

    async fn deregister(&self, _region: &Region, id: &ImageId) -> Result<(), PortError> {
        self.state(|state| state.amis.retain(|ami| ami.id != *id));
        Ok(())
    }

    async fn delete_snapshot(&self, _region: &Region, id: &str) -> Result<(), PortError> {
        self.call("delete_snapshot")?;
        self.state(|state| state.resources.retain(|resource| resource.id != id));
        Ok(())
    }
}
