//! The table: conditional writes that are exact, an index of active builds that is a moment behind.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use ciab_core::build::BuildRecord;
use ciab_core::ids::{BuildId, ImageId};
use ciab_core::image::ImageRecord;
use ciab_core::ports::{
    BuildFilter, IdempotencyKey, ImageFilter, Lease, Page, PortError, Records, Slot, Submission, Write,
};
use jiff::Timestamp;

use crate::world::{Millis, Process, State, TaskId, short};

/// How many builds one page of the index holds: few, so that there are several pages.
const PAGE: usize = 2;

/// What the table holds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) builds: BTreeMap<BuildId, BuildRecord>,
    pub(crate) images: BTreeMap<String, ImageRecord>,
    pub(crate) slots: BTreeSet<BuildId>,
    /// Keys with the digests of their requests and the builds that they gave.
    pub(crate) keys: BTreeMap<String, (String, BuildId)>,
    lease: Option<(String, Timestamp)>,
    /// What the index shows of each build, and from when on.
    index: BTreeMap<BuildId, Vec<(Millis, BuildRecord)>>,
    /// When each task last read the index from its start.
    pub(crate) read_at: BTreeMap<TaskId, Millis>,
}

impl Table {
    /// A build as the index shows it; none where it does not show it.
    pub(crate) fn listed(&self, id: BuildId, at: Millis) -> Option<&BuildRecord> {
        let shown = self.index.get(&id)?.iter().rev().find(|(from, _)| *from <= at);
        shown.map(|(_, record)| record).filter(|record| record.is_active())
    }
}

impl State {
    fn store(&mut self, record: BuildRecord) {
        let lag = self.lag();
        let now = self.now;
        self.judge_record(&record);
        let versions = self.table.index.entry(record.build_id).or_default();
        let from = versions.last().map_or(0, |(from, _)| *from).max(now + lag);
        versions.push((from, record.clone()));
        self.table.builds.insert(record.build_id, record);
    }

    fn replace(&mut self, record: &BuildRecord) -> Write {
        let next = BuildRecord { revision: record.revision + 1, ..record.clone() };
        match self.table.builds.get(&record.build_id) {
            Some(stored) if *stored == next => Write::Done,
            Some(stored)
                if stored.revision == record.revision
                    || self.planted == Some("a record's revision is not looked at") =>
            {
                self.store(next);
                Write::Done
            }
            _ => Write::Conflict,
        }
    }
}

#[async_trait]
impl Records for Process {
    async fn submit(
        &self,
        record: &BuildRecord,
        key: Option<&IdempotencyKey>,
    ) -> Result<Submission, PortError> {
        self.call("dynamodb", "TransactWriteItems (submit)", &short(record.build_id), |state| {
            if state.table.builds.contains_key(&record.build_id) {
                return Ok(Submission::Accepted);
            }
            if let Some(key) = key
                && state.planted != Some("an idempotency key is not looked at")
            {
                match state.table.keys.get(&key.key) {
                    Some((digest, _)) if *digest != key.request_digest => return Ok(Submission::KeyReused),
                    Some((_, id)) => {
                        let earlier = state.table.builds[id].clone();
                        return Ok(Submission::Repeated(Box::new(earlier)));
                    }
                    None => {}
                }
            }
            if let Some(key) = key {
                let known = (key.request_digest.clone(), record.build_id);
                state.table.keys.insert(key.key.clone(), known);
                state.truth.builds_of_key.entry(key.key.clone()).or_default().insert(record.build_id);
            }
            state.submitted(record, &self.world);
            state.store(record.clone());
            Ok(Submission::Accepted)
        })
        .await
    }

    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, PortError> {
        self.call("dynamodb", "GetItem", &short(id), |state| Ok(state.table.builds.get(&id).cloned())).await
    }

    async fn replace(&self, record: &BuildRecord) -> Result<Write, PortError> {
        let about = summary(record);
        self.call("dynamodb", "PutItem", &about, |state| Ok(state.replace(record))).await
    }

    async fn replace_with_images(
        &self,
        record: &BuildRecord,
        images: &[ImageRecord],
    ) -> Result<Write, PortError> {
        let about = summary(record);
        self.call("dynamodb", "TransactWriteItems", &about, |state| {
            let write = state.replace(record);
            if write == Write::Done {
                for image in images {
                    state.table.images.insert(image.image_id.to_string(), image.clone());
                }
                state.admire(record.build_id, &self.world);
            }
            Ok(write)
        })
        .await
    }

    async fn take_slot(&self, id: BuildId, slots: u32) -> Result<Slot, PortError> {
        self.call("dynamodb", "UpdateItem (take slot)", &short(id), |state| {
            if state.table.slots.contains(&id) {
                return Ok(Slot::Held);
            }
            let is_free = state.table.slots.len() < usize::try_from(slots).unwrap_or(usize::MAX)
                || state.planted == Some("slots are not counted");
            if !is_free {
                return Ok(Slot::Full);
            }
            state.judge_turn(id);
            state.table.slots.insert(id);
            Ok(Slot::Taken)
        })
        .await
    }

    async fn release_slot(&self, id: BuildId) -> Result<(), PortError> {
        self.call("dynamodb", "UpdateItem (release slot)", &short(id), |state| {
            state.table.slots.remove(&id);
            Ok(())
        })
        .await
    }

    async fn slots_taken(&self) -> Result<BTreeSet<BuildId>, PortError> {
        self.call("dynamodb", "GetItem (slots)", &"", |state| Ok(state.table.slots.clone())).await
    }

    async fn take_lease(&self, lease: &Lease<'_>) -> Result<bool, PortError> {
        self.call("dynamodb", "UpdateItem (take lease)", &lease.holder, |state| {
            let held = state.table.lease.as_ref();
            let is_free = held.is_none_or(|(holder, until)| holder == lease.holder || *until <= lease.now);
            if is_free {
                state.table.lease = Some((lease.holder.to_owned(), lease.until));
            }
            Ok(is_free)
        })
        .await
    }

    async fn release_lease(&self, _name: &str, holder: &str) -> Result<(), PortError> {
        self.call("dynamodb", "UpdateItem (release lease)", &holder, |state| {
            if state.table.lease.as_ref().is_some_and(|(by, _)| by == holder) {
                state.table.lease = None;
            }
            Ok(())
        })
        .await
    }

    async fn active_builds(&self, next: Option<&str>) -> Result<Page<BuildRecord>, PortError> {
        self.call("dynamodb", "Query (active builds)", &next.unwrap_or_default(), |state| {
            let now = state.now;
            if next.is_none() {
                state.table.read_at.insert(state.current(), now);
            }
            let mut listed: Vec<&BuildRecord> =
                state.table.builds.keys().filter_map(|id| state.table.listed(*id, now)).collect();
            listed.sort_by_key(|record| (record.created_at, record.build_id));
            let place = |record: &BuildRecord| {
                format!("{:030}/{}", record.created_at.as_nanosecond(), record.build_id)
            };
            let rest = listed.iter().filter(|record| next.is_none_or(|next| place(record).as_str() > next));
            let items: Vec<BuildRecord> = rest.clone().take(PAGE).map(|record| (*record).clone()).collect();
            let next = if rest.count() > PAGE { items.last().map(place) } else { None };
            Ok(Page { items, next })
        })
        .await
    }

    async fn builds(
        &self,
        filter: &BuildFilter,
        _limit: u32,
        _next: Option<&str>,
    ) -> Result<Page<BuildRecord>, PortError> {
        let matches = |build: &&BuildRecord| {
            filter.status.is_none_or(|status| status == build.status)
                && filter.provider.is_none_or(|provider| provider == build.provider)
        };
        self.call("dynamodb", "Query (builds)", &"", |state| {
            let mut items: Vec<BuildRecord> = state.table.builds.values().filter(matches).cloned().collect();
            items.sort_by_key(|build| std::cmp::Reverse((build.created_at, build.build_id)));
            Ok(Page { items, next: None })
        })
        .await
    }

    async fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, PortError> {
        self.call("dynamodb", "GetItem (image)", id, |state| Ok(state.table.images.get(id.as_str()).cloned()))
            .await
    }

    async fn images(
        &self,
        _filter: &ImageFilter,
        _limit: u32,
        _next: Option<&str>,
    ) -> Result<Page<ImageRecord>, PortError> {
        self.call("dynamodb", "Query (images)", &"", |state| {
            Ok(Page { items: state.table.images.values().cloned().collect(), next: None })
        })
        .await
    }

    async fn remove_image(&self, image: &ImageRecord) -> Result<(), PortError> {
        self.call("dynamodb", "TransactWriteItems (forget image)", &image.image_id, |state| {
            state.table.images.remove(image.image_id.as_str());
            Ok(())
        })
        .await
    }

    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// A record in a line of a trace.
fn summary(record: &BuildRecord) -> String {
    let failure = record.failure.as_ref().map(|failure| failure.message.as_str()).unwrap_or_default();
    format!(
        "{} rev {} {} {:?}{}{}{} {failure}",
        short(record.build_id),
        record.revision,
        record.status,
        record.phase,
        if record.doomed { " doomed" } else { "" },
        if record.quiet_since.is_some() { " quiet" } else { "" },
        if record.clean { " clean" } else { "" },
    )
}
