//! What to ask for: everything that builds, their ledgers and earlier looks name, together, by kind.
//!
//! Must never pass on what has not the form of what it should be: a ledger was written where a template could write as well,
//! and a wildcard in it would ask for everything.

use std::collections::BTreeSet;

use ciab_core::ports::Trace;
use ciab_core::resource::{key_pair_name, tag};

use super::describe::{Question, by, filter};

pub(super) type Ids = BTreeSet<String>;

/// What the names of Packer's temporary IAM roles and profiles begin with.
const PACKER_IAM_NAME: &str = "packer-";
/// The longest name of an instance profile; a role's is shorter.
const IAM_NAME: usize = 128;

/// Names and ids by kind, of all builds together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    stacks: Ids,
    builds: Ids,
    pub(super) instances: Ids,
    pub(super) volumes: Ids,
    pub(super) group_ids: Ids,
    pub(super) group_names: Ids,
    pub(super) key_pairs: Ids,
    pub(super) images: Ids,
    pub(super) snapshots: Ids,
    pub(super) launch_templates: Ids,
    pub(super) instance_profiles: Ids,
    pub(super) roles: Ids,
}

impl Wanted {
    pub(super) fn of(traces: &[Trace<'_>]) -> Self {
        let mut wanted = Self::default();
        for trace in traces {
            wanted.add(trace);
        }
        wanted
    }

    fn add(&mut self, trace: &Trace<'_>) {
        let (ledger, proven) = (trace.ledger, trace.proven);
        let add = |to: &mut Ids, named: [&Ids; 2], fits: &dyn Fn(&str) -> bool| {
            to.extend(named.into_iter().flatten().filter(|name| fits(name)).cloned());
        };
        let id = |prefix: &'static str| move |text: &str| is_id(prefix, text);
        self.stacks.insert(trace.stack.to_owned());
        self.builds.insert(trace.build_id.to_string());
        add(&mut self.instances, [&ledger.instances, &proven.instances], &id("i-"));
        add(&mut self.volumes, [&ledger.volumes, &proven.volumes], &id("vol-"));
        add(&mut self.group_ids, [&ledger.security_groups, &proven.security_groups], &id("sg-"));
        let is_group_name = |name: &str| !is_id("sg-", name) && is_name(name);
        add(&mut self.group_names, [&ledger.security_groups, &Ids::new()], &is_group_name);
        add(&mut self.key_pairs, [&ledger.key_pairs, &proven.key_pairs], &is_name);
        // The one wildcard, and ours: a template with several sources has several key pairs.
        self.key_pairs.insert(format!("{}*", key_pair_name(trace.build_id)));
        add(&mut self.images, [&ledger.images, &proven.images], &id("ami-"));
        add(&mut self.snapshots, [&ledger.snapshots, &proven.snapshots], &id("snap-"));
        add(&mut self.launch_templates, [&ledger.launch_templates, &proven.launch_templates], &id("lt-"));
        add(
            &mut self.instance_profiles,
            [&ledger.instance_profiles, &proven.instance_profiles],
            &is_iam_name,
        );
        add(&mut self.roles, [&ledger.roles, &proven.roles], &is_iam_name);
    }

    /// Questions for what carries one of the stacks' and one of the builds' tags.
    pub(super) fn tagged(&self) -> Vec<Question> {
        let mut questions = by(&format!("tag:{}", tag::BUILD_ID), &self.builds);
        for question in &mut questions {
            question.push(filter(&format!("tag:{}", tag::STACK), &self.stacks));
        }
        questions
    }
}

fn is_id(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        (1..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// A name that means itself in a filter: `*`, `?` and `\` would mean more.
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"*?\\".contains(&byte))
}

fn is_iam_name(text: &str) -> bool {
    text.starts_with(PACKER_IAM_NAME)
        && text.len() <= IAM_NAME
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use ciab_core::ledger::Ledger;
    use ciab_core::resource::ByKind;

    use super::*;

    const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn a_ledger_cannot_ask_for_everything() {
        let ledger = Ledger {
            instances: ["*".into(), "i-*".into(), "i-0abc".into(), "vol-0abc".into()].into(),
            security_groups: ["packer_*".into(), "packer_1".into(), "sg-0abc".into()].into(),
            key_pairs: ["?".into(), "packer_2".into(), String::new(), "a\\b".into()].into(),
            launch_templates: ["lt-0abc".into(), "*".into()].into(),
            roles: ["packer-1".into(), "admin".into(), "packer-*".into(), "packer-/../admin".into()].into(),
            ..Ledger::default()
        };
        let build_id = BUILD.parse().unwrap();
        let trace = Trace { stack: "prod", build_id, ledger: &ledger, proven: &ByKind::default() };
        let wanted = Wanted::of(&[trace]);
        assert_eq!(wanted.instances, ["i-0abc".to_owned()].into());
        assert_eq!(wanted.group_names, ["packer_1".to_owned()].into());
        assert_eq!(wanted.group_ids, ["sg-0abc".to_owned()].into());
        assert_eq!(wanted.key_pairs, ["packer_2".to_owned(), format!("ciab-{BUILD}*")].into());
        assert_eq!(wanted.launch_templates, ["lt-0abc".to_owned()].into());
        assert_eq!(wanted.roles, ["packer-1".to_owned()].into());
    }

    #[test]
    fn tags_are_asked_for_in_parts_of_two_hundred_builds_always_with_the_stack() {
        let builds = (0..450).map(|number| format!("build-{number}")).collect();
        let wanted = Wanted { stacks: ["prod".to_owned()].into(), builds, ..Wanted::default() };
        let questions = wanted.tagged();
        let sizes: Vec<usize> = questions.iter().map(|question| question[0].values().len()).collect();
        assert_eq!(sizes, [200, 200, 50]);
        assert!(questions.iter().all(|question| question[1].values() == ["prod"]));
    }
}
