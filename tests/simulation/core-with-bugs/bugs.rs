//! The planted bugs: each a change of the text of `shared/core`, with `PLANTED` where the switch goes, and what it breaks.
//!
//! Read by `build.rs`, which writes them into the copy, and by `teeth`, which looks whether each is found.

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// What is wrong; what the switch is called.
    pub name: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// How it gets into the core. None for a bug of an adapter: then the pretend AWS behaves as if the adapter had it.
    pub changes: &'static [Change],
}

/// One change of a file.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// The file in `shared/core/src`.
    pub file: &'static str,
    /// A text that stands in it once.
    pub original: &'static str,
    /// What stands there instead.
    pub mutant: &'static str,
}

const fn change(file: &'static str, original: &'static str, mutant: &'static str) -> Change {
    Change { file, original, mutant }
}

/// Bugs of adapters, which the pretend AWS plays.
pub const OF_ADAPTERS: &[Bug] = &[
    Bug {
        name: "a record's revision is not looked at",
        breaks: "two writers: a final status changes, or a decision is undone",
        changes: &[],
    },
    Bug { name: "an idempotency key is not looked at", breaks: "one key gives two builds", changes: &[] },
    Bug { name: "slots are not counted", breaks: "more builds run at once than may", changes: &[] },
    Bug {
        name: "StartBuild has no idempotency token",
        breaks: "an event that comes twice launches two runners",
        changes: &[],
    },
];

/// Bugs of the core.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "the stack's tag is not looked at",
        breaks: "another stack's instance is deleted",
        changes: &[change(
            "resource.rs",
            "return resource.is_tagged(owner.stack, owner.build_id).then_some(Proof::Tag);",
            "let of_any_stack = PLANTED && resource.tags.get(tag::BUILD_ID) == Some(&owner.build_id.to_string());
            return (of_any_stack || resource.is_tagged(owner.stack, owner.build_id)).then_some(Proof::Tag);",
        )],
    },
    Bug {
        name: "half an owner's tags are a proof",
        breaks: "an instance that carries one of our tags is deleted",
        changes: &[change(
            "resource.rs",
            "(Some(_), None) | (None, Some(_)) => return None,",
            "(Some(stack), None) if PLANTED => return (stack == owner.stack).then_some(Proof::Tag),
             (Some(_), None) | (None, Some(_)) => return None,",
        )],
    },
    Bug {
        name: "a group with Packer's name is ours",
        breaks: "a foreign Packer's security group is deleted",
        changes: &[change(
            "resource.rs",
            "if has_own_parent || was_proven {
                Some(Proof::Parent)
            } else {
                in_ledger(&ledger.security_groups, PACKER_NAME)",
            "if has_own_parent || was_proven || PLANTED {
                Some(Proof::Parent)
            } else {
                in_ledger(&ledger.security_groups, PACKER_NAME)",
        )],
    },
    Bug {
        name: "a key pair with Packer's name is ours",
        breaks: "a foreign Packer's key pair is deleted",
        changes: &[change(
            "resource.rs",
            "ResourceKind::KeyPair => in_ledger(&ledger.key_pairs, PACKER_NAME),",
            "ResourceKind::KeyPair if PLANTED => resource.id.starts_with(PACKER_NAME).then_some(Proof::Name),
             ResourceKind::KeyPair => in_ledger(&ledger.key_pairs, PACKER_NAME),",
        )],
    },
    Bug {
        name: "the ledger alone is a proof",
        breaks: "what a hostile template names is deleted",
        changes: &[change(
            "resource.rs",
            "ResourceKind::Instance => None,",
            "ResourceKind::Instance => {
                (PLANTED && ledger.instances.contains(&resource.id)).then_some(Proof::Ledger)
            }",
        )],
    },
    Bug {
        name: "a thing's age is not looked at",
        breaks: "what was there before the build, and what a hostile template names, is deleted",
        changes: &[change(
            "resource.rs",
            "if resource.created_at.is_some_and(|at| at.as_second() < owner.began.as_second()) {",
            "if !PLANTED && resource.created_at.is_some_and(|at| at.as_second() < owner.began.as_second()) {",
        )],
    },
    Bug {
        name: "an image's source instance is not looked at",
        breaks: "an AMI that Packer had not tagged yet stays",
        changes: &[change(
            "resource.rs",
            "let has_own_parent = resource.parents.iter()",
            "let has_own_parent = !PLANTED && resource.parents.iter()",
        )],
    },
    Bug {
        name: "a copy is nobody's",
        breaks: "copies in other regions stay",
        changes: &[change(
            "resource.rs",
            "!owner.succeeded && original.is_some_and",
            "!PLANTED && !owner.succeeded && original.is_some_and",
        )],
    },
    Bug {
        name: "what was proven is not noted",
        breaks: "a group stays whose instance went first",
        changes: &[change(
            "reconcile.rs",
            "self.record.leftovers.found.insert(resource);",
            "if !PLANTED { self.record.leftovers.found.insert(resource); }",
        )],
    },
    Bug {
        name: "the ledger is not read",
        breaks: "what carries no tag stays",
        changes: &[change(
            "reconcile.rs",
            "let ledger = deps.objects.get(&Ledger::key(id)).await?;",
            "let ledger = deps.objects.get(&Ledger::key(id)).await?.filter(|_| !PLANTED);",
        )],
    },
    Bug {
        name: "the decision is not written before things are deleted",
        breaks: "an image is deleted of a build that may still succeed",
        changes: &[
            change(
                "reconcile.rs",
                "self.record.doom(truth)?;
                    self.save(deps).await?;",
                "self.record.doom(truth)?;
                    if !PLANTED { self.save(deps).await?; }",
            ),
            change(
                "reconcile.rs",
                "// The proof first: what is deleted no longer vouches for what it held.
        self.save(deps).await?;",
                "if !PLANTED { self.save(deps).await?; }",
            ),
        ],
    },
    Bug {
        name: "the runner is not stopped before the tear-down",
        breaks: "a runner goes on, and makes things after everything was removed",
        changes: &[change(
            "life.rs",
            "if !record.may_have_runner() {
        return None;
    }
    let Some(runners)",
            "if PLANTED || !record.may_have_runner() {
        return None;
    }
    let Some(runners)",
        )],
    },
    Bug {
        name: "a build is called clean at the first look",
        breaks: "what turns up a moment later stays",
        changes: &[
            change(
                "life.rs",
                "if record.quiet_since.is_some_and(|since| now.duration_since(since) < QUIET) {",
                "if !PLANTED && record.quiet_since.is_some_and(|since| now.duration_since(since) < QUIET) {",
            ),
        ],
    },
    Bug {
        name: "a lost runner's build is doomed unseen",
        breaks: "a failure is told of an image that exists",
        changes: &[change(
            "build.rs",
            "matches!(self, Self::Lost | Self::TimedOut)",
            "!PLANTED && matches!(self, Self::Lost | Self::TimedOut)",
        )],
    },
    Bug {
        name: "a cancelled build may still end well",
        breaks: "a build succeeds whose cancelling was accepted",
        changes: &[change(
            "build.rs",
            "if !failure.kind.may_have_ended_well() && !self.doomed {",
            "let is_cancelled = failure.kind == FailureKind::Cancelled;
        if !(PLANTED && is_cancelled) && !failure.kind.may_have_ended_well() && !self.doomed {",
        )],
    },
    Bug {
        name: "an image that EC2 shows late is given up at once",
        breaks: "a failure is told of an image that exists",
        changes: &[change(
            "life.rs",
            "(true, false) => vec![Action::Wait],",
            "(true, false) if PLANTED => vec![Action::Doom(None)],
        (true, false) => vec![Action::Wait],",
        )],
    },
    Bug {
        name: "an image is given up unseen once patience is over",
        breaks: "a failure is told of an image that exists",
        changes: &[change(
            "life.rs",
            "(false, _) => vec![Action::Finish(artifacts), Action::Wait],",
            "(false, true) if PLANTED => vec![Action::Doom(None)],
        (false, _) => vec![Action::Finish(artifacts), Action::Wait],",
        )],
    },
    Bug {
        name: "tags that EC2 shows late are somebody else's",
        breaks: "a failure is told of an image that exists",
        changes: &[change(
            "finish_build.rs",
            "if !image.tags.contains_key(tag::STACK) &&",
            "if !PLANTED && !image.tags.contains_key(tag::STACK) &&",
        )],
    },
    Bug {
        name: "an image's tags are not looked at",
        breaks: "a build succeeds with somebody else's AMI",
        changes: &[
            change(
                "finish_build.rs",
                "&& !image.tags.contains_key(tag::BUILD_ID) {",
                "&& !image.tags.contains_key(tag::BUILD_ID) && !PLANTED {",
            ),
            change(
                "finish_build.rs",
                "if !is_tagged(&image.tags, stack, record.build_id) {",
                "if !PLANTED && !is_tagged(&image.tags, stack, record.build_id) {",
            ),
        ],
    },
    Bug {
        name: "an image of an unfinished Packer is taken over as it is",
        breaks: "a build succeeds with an AMI that is not whole",
        changes: &[
            change(
                "life.rs",
                "image.available && image.is_tagged(stack, record.build_id);",
                "PLANTED || image.available && image.is_tagged(stack, record.build_id);",
            ),
            change("finish_build.rs", "if image.pending {", "if image.pending && !PLANTED {"),
            change("finish_build.rs", "if !image.available {", "if !image.available && !PLANTED {"),
            change(
                "finish_build.rs",
                "// Packer tags an AMI last, and EC2 may show that late.",
                "if PLANTED { return Ok(image); }",
            ),
        ],
    },
    Bug {
        name: "what the other sources came to is not asked",
        breaks: "a build succeeds with some of its images",
        changes: &[change(
            "life.rs",
            "if !ledger.provisioned_to_the_end() {",
            "if !PLANTED && !ledger.provisioned_to_the_end() {",
        )],
    },
    Bug {
        name: "copies are not looked for",
        breaks: "copies in other regions stay",
        changes: &[change(
            "life.rs",
            "noted.filter(|region| *region != record.region).collect()",
            "noted.filter(|region| !PLANTED && *region != record.region).collect()",
        )],
    },
    Bug {
        name: "a build that succeeded keeps nothing",
        breaks: "a finished image is deleted",
        changes: &[change(
            "life.rs",
            "if record.status == BuildStatus::Succeeded {
        kept.extend",
            "if !PLANTED && record.status == BuildStatus::Succeeded {
        kept.extend",
        )],
    },
    Bug {
        name: "a person's copy of a finished image is ours",
        breaks: "somebody else's AMI is deleted",
        changes: &[change(
            "life.rs",
            "&& !is_copy_of_kept(resource)",
            "&& (PLANTED || !is_copy_of_kept(resource))",
        )],
    },
    Bug {
        name: "a build that has ended can fail",
        breaks: "a late event turns a final status back",
        changes: &[
            change(
                "build.rs",
                "if self.status.is_final() {
            return Err(NotAllowed { from: self.status, attempted: \"fail\" });",
                "if self.status.is_final() && !PLANTED {
            return Err(NotAllowed { from: self.status, attempted: \"fail\" });",
            ),
            change(
                "clean_up.rs",
                "if record.status.is_final() {
            return Ok(());",
                "if record.status.is_final() && !PLANTED {
            return Ok(());",
            ),
        ],
    },
    Bug {
        name: "a doomed build can succeed",
        breaks: "an image is taken over and deleted",
        changes: &[change(
            "build.rs",
            "if self.status != BuildStatus::Building || self.doomed || image_id.is_none() {",
            "if self.status != BuildStatus::Building || (self.doomed && !PLANTED) || image_id.is_none() {",
        )],
    },
    Bug {
        name: "a build that fails or has ended gets a runner",
        breaks: "a late event launches a runner that nobody looks after",
        changes: &[change(
            "build.rs",
            "self.guard(\"start a runner\")?;",
            "if !PLANTED { self.guard(\"start a runner\")?; }",
        )],
    },
    Bug {
        name: "that a runner is asked for is not noted first",
        breaks: "a runner whose start was not answered is never found",
        changes: &[change(
            "start_runner.rs",
            "record.runner_starting(now)?;",
            "if PLANTED { return Ok(()); }
        record.runner_starting(now)?;",
        )],
    },
    Bug {
        name: "the youngest build goes first",
        breaks: "a build gets a slot before those that wait longer",
        changes: &[change(
            "dispatch.rs",
            "waiting.sort_by_key(|record| (record.created_at, record.build_id));",
            "waiting.sort_by_key(|record| (record.created_at, record.build_id));
        if PLANTED { waiting.reverse(); }",
        )],
    },
    Bug {
        name: "one build more than may runs",
        breaks: "more builds run at once than may",
        changes: &[
            change(
                "dispatch.rs",
                "let mut free = usize::try_from(self.slots)",
                "let slots = if PLANTED { self.slots + 1 } else { self.slots };
        let mut free = usize::try_from(slots)",
            ),
            change(
                "dispatch.rs",
                "take_slot(record.build_id, self.slots)",
                "take_slot(record.build_id, if PLANTED { self.slots + 1 } else { self.slots })",
            ),
        ],
    },
    Bug {
        name: "a slot is given back while its build runs",
        breaks: "more builds run at once than may",
        changes: &[change(
            "poll_builds.rs",
            "if record.is_none_or(|record| record.status.is_final()) {",
            "if PLANTED || record.is_none_or(|record| record.status.is_final()) {",
        ), change(
            "poll_builds.rs",
            "active.get(id).is_some_and(|record| !record.status.is_final());",
            "active.get(id).is_some_and(|record| !record.status.is_final() && !(PLANTED && record.failure.is_some()));",
        )],
    },
    Bug {
        name: "slots of builds that ended are not freed",
        breaks: "builds wait for ever for a slot whose holder died",
        changes: &[change(
            "poll_builds.rs",
            "for id in slots.iter().filter(|id| !needs_it(id)) {",
            "for id in slots.iter().filter(|id| !PLANTED && !needs_it(id)) {",
        )],
    },
    Bug {
        name: "an execution that was lost is not started again",
        breaks: "a build waits for ever",
        changes: &[change(
            "life.rs",
            "Some(ExecutionState::Absent) => vec![Action::StartExecution],",
            "Some(ExecutionState::Absent) if PLANTED => Vec::new(),
        Some(ExecutionState::Absent) => vec![Action::StartExecution],",
        )],
    },
    Bug {
        name: "the poller leaves builds that fail to the state machine",
        breaks: "a build whose clean-up died never ends",
        changes: &[change(
            "poll_builds.rs",
            "let builds = active_builds(deps).await?;",
            "let mut builds = active_builds(deps).await?;
    if PLANTED { builds.retain(|build| build.failure.is_none() || build.status.is_final()); }",
        )],
    },
    Bug {
        name: "what turns up after a build was clean is not looked for",
        breaks: "a runner that was launched late, and what it makes, stays",
        changes: &[change(
            "poll_builds.rs",
            "sweep(deps, &active).await;",
            "if !PLANTED { sweep(deps, &active).await; }",
        )],
    },
    Bug {
        name: "a region that does not answer has no images",
        breaks: "images leave the listing although they are there",
        changes: &[change(
            "poll_builds.rs",
            "let there = deps.reconcile.cloud.images(region, &ids).await?;",
            "let there = match deps.reconcile.cloud.images(region, &ids).await {
                Err(_) if PLANTED => Vec::new(),
                answer => answer?,
            };",
        )],
    },
    Bug {
        name: "cancelling is not recorded",
        breaks: "a build succeeds whose cancelling was accepted",
        changes: &[change(
            "cancel_build.rs",
            "update(&*deps.records, id, |record| record.begin_clean_up(",
            "update(&*deps.records, id, |record| if PLANTED { Ok(()) } else { record.begin_clean_up(",
        ), change(
            "cancel_build.rs",
            "Failure::cancelled(record.stage()), now));",
            "Failure::cancelled(record.stage()), now) } .or_else(|error| if PLANTED { Ok(()) } else { Err(error) }));",
        )],
    },
    Bug {
        name: "an image's record goes first",
        breaks: "a deletion that was cut short leaves an AMI that nobody lists",
        changes: &[change(
            "delete_image.rs",
            "deps.cloud.deregister(&image.region, &image.image_id).await?;",
            "if PLANTED { deps.records.remove_image(image).await?; }
        deps.cloud.deregister(&image.region, &image.image_id).await?;",
        )],
    },
    Bug {
        name: "variables are kept in the record",
        breaks: "a secret stands in the table",
        changes: &[change(
            "build_image.rs",
            "tags: asked.tags.clone(),",
            "tags: if PLANTED {
            asked.variables.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
        } else {
            asked.tags.clone()
        },",
        )],
    },
];
