//! Who asks from outside: those who submit, cancel and delete, the schedule that invokes the poller, and people and other
//! stacks in the same account.

use std::collections::BTreeMap;
use std::sync::Arc;

use ciab_core::api::{ApiError, HttpRequest, HttpResponse};
use ciab_core::ids::BuildId;
use ciab_core::ports::Identifiers as _;
use ciab_core::resource::{ResourceKind, tag};
use ciab_core::{build_image, cancel_build, delete_image, poll_builds};
use serde_json::{Value, json};

use crate::ec2::{Key, Maker, REGIONS, region};
use crate::invariants::SECRET;
use crate::parts;
use crate::runner::tags_of;
use crate::world::{Answer, MINUTE, Millis, Process, SECOND, State, World, short};
use crate::{OTHER_STACK, STACK};

/// The limits that `infra/template.yaml` gives the functions.
const HTTP: Millis = 29 * SECOND;
const POLL: Millis = 300 * SECOND;

const TEMPLATE: &str = r#"variable "token" {
  type      = string
  sensitive = true
  default   = ""
}

source "amazon-ebs" "x" {
  region = "us-east-1"
}

build {
  sources = ["source.amazon-ebs.x"]
}
"#;

fn answered(response: Result<HttpResponse, ApiError>) -> Answer {
    let response = response.unwrap_or_else(|error| error.response());
    Ok(json!({"status": response.status, "body": response.body}))
}

/// Asks a function, and again while it is not available: a status and a body, or none.
async fn ask<F>(
    world: &World,
    name: &'static str,
    tries: usize,
    body: impl Fn(Arc<Process>) -> F + Clone + 'static,
) -> Option<(u64, Value)>
where
    F: Future<Output = Answer> + 'static,
{
    for _ in 0..tries {
        let invocation = world.invoke(name, HTTP, body.clone());
        world.wait(&[invocation], Some(HTTP)).await;
        let answer = world.state(|state| state.answer_of(invocation));
        if let Some(Ok(answer)) = answer
            && let Some(status) = answer["status"].as_u64()
            && status < 500
        {
            return Some((status, answer["body"].clone()));
        }
        let pause = world.state(|state| state.between(0, 20 * SECOND));
        world.sleep(pause).await;
    }
    None
}

/// Somebody who wants an image.
pub(crate) async fn submitter(world: World, number: usize) {
    let (begins, body, key, tries) = world.state(|state| {
        let runner = if state.random.bool() { "codebuild" } else { "ec2" };
        let body = json!({
            "provider": "codex",
            "region": REGIONS[state.random.usize(0..2)],
            "timeout_secs": if state.random.bool() { 900 } else { state.between(120, 900) },
            "runner": runner,
            "template": {"type": "inline", "content": TEMPLATE},
            "variables": {"token": SECRET},
        });
        let key = state.chance(0.6).then(|| format!("key-{}", if state.chance(0.1) { 0 } else { number }));
        let rush = state.weather.rush;
        (state.between(0, rush), body, key, state.random.usize(1..4))
    });
    world.sleep(begins).await;
    // With a key it is safe to ask again, also after an answer.
    let rounds = if key.is_some() { 1 + usize::from(world.state(|state| state.random.bool())) } else { 1 };
    for _ in 0..rounds {
        let (asked, header) = (Arc::new(body.to_string()), key.clone());
        let tries = if key.is_some() { tries } else { 1 };
        let answer = ask(&world, "build-image", tries, move |process| {
            let mut request = HttpRequest { method: "POST".into(), ..HttpRequest::default() };
            request.body = asked.as_bytes().to_vec();
            request.headers.extend(header.clone().map(|key| ("idempotency-key".to_owned(), key)));
            async move { answered(build_image::handle(&parts::build_image(&process), &request).await) }
        })
        .await;
        let Some((status, body)) = answer else { continue };
        let id = body["build_id"].as_str().and_then(|id| id.parse::<BuildId>().ok());
        world.state(|state| match (status, id) {
            (202, Some(id)) => state.accepted(id, key.as_deref()),
            (409, _) if key.is_some() => {}
            (status, _) => state.violated(format!("a build was asked for and answered {status}: {body}")),
        });
        let pause = world.state(|state| state.between(0, 3 * MINUTE));
        world.sleep(pause).await;
    }
}

impl State {
    /// What else happens around a build that was just written: somebody cancels it, somebody has something that looks like it.
    pub(crate) fn surround(&mut self, id: BuildId, world: &World) {
        let (cancelled, deleted) = (self.weather.cancelled, self.weather.deleted);
        if self.chance(cancelled) {
            let times = self.random.usize(0..3);
            for _ in 0..times {
                let after = self.between(0, 12 * MINUTE);
                self.spawn("client", cancel(world.clone(), id, after));
            }
        }
        if self.chance(deleted) {
            let after = self.between(MINUTE, 15 * MINUTE);
            self.spawn("client", delete(world.clone(), id, after));
        }
        self.look_alikes(id);
    }

    /// What happens around a build that has just succeeded.
    pub(crate) fn admire(&mut self, id: BuildId, world: &World) {
        if self.chance(0.3) {
            let after = self.between(0, 90 * SECOND);
            self.spawn("somebody", person(world.clone(), id, after));
        }
    }

    /// Somebody cancels a build at the worst moment: when Packer has just made something, or has just ended well.
    pub(crate) fn regret(&mut self, id: BuildId, likely: f64, world: &World) {
        let cancelled = self.weather.cancelled;
        if !self.calm && self.chance(cancelled * likely) {
            let after = self.between(0, 3 * SECOND);
            self.spawn("client", cancel(world.clone(), id, after));
        }
    }

    /// Things of others that look like a build's.
    fn look_alikes(&mut self, id: BuildId) {
        let other = Maker::SomebodyElse;
        let place = region(self.random.usize(0..3));
        let one_tag = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let mut of_other_stack = tags_of(id);
        of_other_stack.insert(tag::STACK.into(), OTHER_STACK.into());
        let unknown = tags_of(BuildId::new(self.uuid()));
        let tags = [
            of_other_stack,
            one_tag(tag::BUILD_ID, &id.to_string()),
            one_tag(tag::STACK, STACK),
            one_tag(tag::MANAGED, "true"),
            unknown,
            BTreeMap::new(),
        ];
        for tags in tags {
            if !self.chance(0.3) {
                continue;
            }
            let (instance, group, key) = (self.digits(), self.digits(), self.uuid());
            let (instance, group) = (format!("i-{instance}"), format!("sg-{group}"));
            self.make(ResourceKind::SecurityGroup, &place, group.clone(), other, |thing| {
                thing.name = format!("packer_{key}");
                thing.description = "Temporary group for Packer".into();
                thing.tags = tags.clone();
            });
            self.make(ResourceKind::KeyPair, &place, format!("packer_{key}"), other, |_| {});
            self.make(ResourceKind::Role, &place, format!("packer-{key}"), other, |_| {});
            self.make(ResourceKind::Instance, &place, instance.clone(), other, |thing| {
                thing.tags = tags.clone();
                thing.holds.insert((ResourceKind::SecurityGroup, group));
            });
            let volume = format!("vol-{}", self.digits());
            self.make(ResourceKind::Volume, &place, volume, other, |thing| {
                thing.tags = tags.clone();
                thing.attached = Some((instance.clone(), false));
            });
            let (unused, key) = (format!("sg-{}", self.digits()), self.uuid());
            self.make(ResourceKind::SecurityGroup, &place, unused, other, |thing| {
                thing.name = format!("packer_{key}");
                thing.description = "Temporary group for Packer".into();
            });
            let image = self.create_image(&place, other, "an image", Some(&instance), None, Some(0));
            self.tag(&(ResourceKind::Image, image), &tags);
        }
    }
}

async fn cancel(world: World, id: BuildId, after: Millis) {
    world.sleep(after).await;
    let answer = ask(&world, "cancel-build", 3, move |process| {
        let mut request = HttpRequest { method: "POST".into(), ..HttpRequest::default() };
        request.path_parameters.insert("build_id".into(), id.to_string());
        async move { answered(cancel_build::handle(&parts::reconcile(&process), &request).await) }
    })
    .await;
    world.state(|state| match answer {
        Some((202, _)) => state.cancelled(id),
        Some((409, _)) => state.refused_to_cancel(id),
        None => {}
        Some((status, body)) => {
            state.violated(format!("{} was cancelled and answered {status}: {body}", short(id)))
        }
    });
}

/// Deletes the images of a build that has some by then.
async fn delete(world: World, id: BuildId, after: Millis) {
    world.sleep(after).await;
    let images = world.state(|state| {
        let images = state.table.images.values().filter(|image| image.build_id == id);
        images.map(|image| image.image_id.clone()).collect::<Vec<_>>()
    });
    // Whoever deletes one of a build's images deletes them all.
    world.state(|state| images.iter().for_each(|image| state.may_delete(image)));
    for image in images.clone() {
        let asked = image.clone();
        let answer = ask(&world, "delete-image", 4, move |process| {
            let mut request = HttpRequest { method: "DELETE".into(), ..HttpRequest::default() };
            request.path_parameters.insert("image_id".into(), image.to_string());
            async move { answered(delete_image::handle(&parts::delete_image(&process), &request).await) }
        })
        .await;
        world.state(|state| {
            // It may be answered that there is no such image while EC2 does not show its tags yet.
            if matches!(answer, Some((204, _))) {
                state.deleted(&asked);
            }
            // One whose tags EC2 does not show yet stays, and stays listed.
            if matches!(answer, Some((204 | 404, _))) {
                for image in &images {
                    if !state.table.images.contains_key(image.as_str()) {
                        state.deleted(image);
                    }
                }
            }
        });
    }
}

/// A person with a console: copies a finished image with all its tags, or deregisters it by hand.
async fn person(world: World, id: BuildId, after: Millis) {
    world.sleep(after).await;
    world.state(|state| {
        let image = state.table.builds.get(&id).and_then(|build| build.image_id.clone());
        let Some(image) = image else { return };
        let key: Key = (ResourceKind::Image, image.to_string());
        let Some(thing) = state.ec2.things.get(&key).cloned() else { return };
        if !state.is_there(&thing) {
            return;
        }
        if state.chance(0.3) {
            state.say(|| format!("deregisters {image} by hand"));
            state.may_delete(&image);
            state.take_away(&key);
            return;
        }
        let to = region(state.random.usize(0..3));
        let copy = state.create_image(
            &to,
            Maker::SomebodyElse,
            "a copy",
            None,
            Some(image.as_str()),
            Some(20 * SECOND),
        );
        if state.random.bool() {
            let snapshots = state.ec2.things[&(ResourceKind::Image, copy.clone())].snapshots.clone();
            let copied = [(ResourceKind::Image, copy)];
            let behind = snapshots.into_iter().map(|id| (ResourceKind::Snapshot, id));
            for key in copied.into_iter().chain(behind) {
                state.tag(&key, &thing.tags);
            }
        }
    });
}

/// The schedule: a poll a minute, at times two of them, at times none.
pub(crate) async fn schedule(world: World) {
    let first = world.state(|state| state.between(0, MINUTE));
    world.sleep(first).await;
    loop {
        let (happens, second) = world.state(|state| {
            let now = state.now;
            let dead = state.weather.no_polls.is_some_and(|(from, to)| from <= now && now < to);
            let likely = state.weather.second_poll;
            let second = !state.calm && state.chance(likely);
            state.truth.polls += 1;
            (state.calm || !dead, second.then(|| state.between(0, 30 * SECOND)))
        });
        if happens {
            poll(&world);
        }
        let pause = second.unwrap_or(0);
        world.sleep(pause).await;
        if second.is_some() && happens {
            poll(&world);
        }
        world.sleep(MINUTE - pause).await;
    }
}

fn poll(world: &World) {
    world.invoke("poll-builds", POLL, |process| async move {
        let holder = process.new_holder();
        match poll_builds::run(&parts::poll_builds(&process), &holder).await {
            Ok(output) => Ok(json!(output)),
            Err(error) => Err((error.name().to_owned(), error.to_string())),
        }
    });
}
