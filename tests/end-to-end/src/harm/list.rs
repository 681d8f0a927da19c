//! The list.

use super::{End, Harm, Moment, Scenario, Step, Victim, Work};
use crate::proxy::Pattern;

/// Every scenario.
pub fn scenarios() -> Vec<Scenario> {
    [killed_runners(), killed_executions(), killed_functions(), lost_replies(), cancelled()].concat()
}

/// Moments of a build, named for people, with how long its instance works.
struct At {
    when: &'static str,
    work: Work,
    moment: Moment,
    /// Whether the AMI may be complete by then, so that the build may rightly succeed with it.
    may_have_image: bool,
}

fn packers(call: &'static str) -> Pattern {
    Pattern::call(call).by("packer")
}

fn before_the_instance() -> At {
    let moment = Moment::Call(packers("ec2.RunInstances"));
    At { when: "as RunInstances is under way", work: Work::Brief, moment, may_have_image: false }
}

fn while_provisioning() -> At {
    let moment = Moment::Logged(Work::BEGUN);
    At { when: "while provisioning", work: Work::Endless, moment, may_have_image: false }
}

fn as_the_image_is_asked_for() -> At {
    let moment = Moment::Call(packers("ec2.CreateImage"));
    At { when: "as CreateImage is under way", work: Work::Brief, moment, may_have_image: true }
}

fn while_the_image_is_made() -> At {
    // Packer asks for the AMI by its id for the first time when it waits for it.
    let moment = Moment::Call(packers("ec2.DescribeImages").containing("ImageId.1="));
    At { when: "while the AMI is made", work: Work::Brief, moment, may_have_image: true }
}

fn after_the_image() -> At {
    let moment = Moment::Call(packers("ec2.TerminateInstances"));
    At { when: "after the AMI, before Packer's clean-up", work: Work::Brief, moment, may_have_image: true }
}

fn while_reporting() -> At {
    let moment = Moment::Call(Pattern::call("states.SendTaskSuccess").by("ciab-runner"));
    At { when: "as the report is under way", work: Work::Brief, moment, may_have_image: true }
}

fn scenario(name: String, at: At, harm: Harm) -> Scenario {
    let end = if at.may_have_image { End::Either } else { End::Failed };
    let steps = vec![Step { moment: at.moment, harm }];
    Scenario { name, work: at.work, steps, end, timeout_secs: None, in_tests: false }
}

fn killed_runners() -> Vec<Scenario> {
    let kinds = [
        (Victim::Runner, "the runner is killed"),
        (Victim::Packer, "Packer's group is killed"),
        (Victim::Machine, "the runner's machine dies"),
    ];
    let mut all = Vec::new();
    for (victim, what) in kinds {
        let moments = [
            before_the_instance(),
            while_provisioning(),
            as_the_image_is_asked_for(),
            while_the_image_is_made(),
            after_the_image(),
            while_reporting(),
        ];
        for at in moments {
            let reports = at.when == while_reporting().when;
            if victim == Victim::Packer && reports {
                // It has ended by then.
                continue;
            }
            let in_tests = victim == Victim::Machine
                && (reports || at.when == while_the_image_is_made().when)
                || victim == Victim::Packer && at.when == before_the_instance().when;
            let name = format!("{what} {}", at.when);
            all.push(Scenario { in_tests, ..scenario(name, at, Harm::Kill(vec![victim])) });
        }
    }
    all
}

fn killed_executions() -> Vec<Scenario> {
    let moments = || {
        [
            before_the_instance(),
            while_provisioning(),
            while_the_image_is_made(),
            after_the_image(),
            while_reporting(),
        ]
    };
    let mut all = Vec::new();
    for at in moments() {
        let name = format!("the execution is stopped {}", at.when);
        let in_tests = at.when == while_provisioning().when;
        // Packer goes on until somebody stops it, and may come to its end before.
        let end = if at.work == Work::Endless { End::Failed } else { End::Either };
        all.push(Scenario { in_tests, end, ..scenario(name, at, Harm::Kill(vec![Victim::Execution])) });
    }
    // Nobody but the poller is left.
    for at in moments() {
        let name = format!("execution and runner's machine die {}", at.when);
        let in_tests = at.when == after_the_image().when;
        all.push(Scenario {
            in_tests,
            ..scenario(name, at, Harm::Kill(vec![Victim::Execution, Victim::Machine]))
        });
    }
    all
}

fn killed_functions() -> Vec<Scenario> {
    let calls: [(&'static str, &'static str, &'static str, usize); 12] = [
        ("build-image", "dynamodb.TransactWriteItems", "", 1),
        // Its slot.
        ("build-image", "dynamodb.UpdateItem", "", 1),
        ("build-image", "states.StartExecution", "", 1),
        ("prepare-build", "s3.GET object", "input.json", 1),
        ("prepare-build", "s3.PUT object", "template.tar.gz", 1),
        ("prepare-build", "dynamodb.PutItem", "", 1),
        ("start-runner", "dynamodb.PutItem", "", 1),
        ("start-runner", "codebuild.StartBuild", "", 1),
        ("start-runner", "dynamodb.PutItem", "", 2),
        ("finish-build", "ec2.DescribeImages", "", 1),
        ("finish-build", "dynamodb.TransactWriteItems", "", 1),
        ("finish-build", "dynamodb.UpdateItem", "", 1),
    ];
    let mut all: Vec<Scenario> = calls
        .into_iter()
        .map(|(function, call, containing, nth)| {
            let pattern = Pattern::call(call).by(function).containing(containing).nth(nth);
            let number = if nth > 1 { format!(" no. {nth}") } else { String::new() };
            let step = Step { moment: Moment::Call(pattern), harm: Harm::Kill(vec![Victim::Caller]) };
            Scenario {
                name: format!("{function} is killed in its {call}{number}"),
                work: Work::Brief,
                steps: vec![step],
                end: End::Either,
                timeout_secs: None,
                in_tests: matches!((function, call), ("start-runner", "codebuild.StartBuild")),
            }
        })
        .collect();
    let cleaning: [(&'static str, &'static [Victim]); 2] = [
        // The runner lives and reports, so the state machine comes to its clean-up.
        ("clean-up", &[Victim::Packer]),
        // With the execution gone too, the poller is the only one that can.
        ("poll-builds", &[Victim::Execution, Victim::Machine]),
    ];
    for (function, first) in cleaning {
        for call in
            ["ec2.TerminateInstances", "ec2.DeleteSecurityGroup", "ec2.DeleteKeyPair", "dynamodb.PutItem"]
        {
            let pattern = Pattern::call(call).by(function);
            let before = while_provisioning();
            all.push(Scenario {
                name: format!("{function} is killed in its {call}"),
                work: before.work,
                steps: vec![
                    Step { moment: before.moment, harm: Harm::Kill(first.to_vec()) },
                    Step { moment: Moment::Call(pattern), harm: Harm::Kill(vec![Victim::Caller]) },
                ],
                end: End::Failed,
                timeout_secs: None,
                in_tests: (function, call) == ("clean-up", "ec2.TerminateInstances"),
            });
        }
    }
    all
}

fn lost_replies() -> Vec<Scenario> {
    let of_packer = [
        "ec2.CreateKeyPair",
        "ec2.CreateSecurityGroup",
        "ec2.AuthorizeSecurityGroupIngress",
        "ec2.RunInstances",
        "ec2.CreateTags",
        "ec2.StopInstances",
        "ec2.CreateImage",
        "ec2.TerminateInstances",
        "ec2.DeleteSecurityGroup",
        "ec2.DeleteKeyPair",
    ];
    let mut all: Vec<Scenario> = of_packer
        .into_iter()
        .map(|call| {
            let in_tests = matches!(call, "ec2.RunInstances" | "ec2.CreateSecurityGroup" | "ec2.CreateImage");
            Scenario { in_tests, ..lost(packers(call), "Packer's", End::Either) }
        })
        .collect();
    let of_ours: [(&'static str, &'static str, usize); 13] = [
        ("build-image", "dynamodb.TransactWriteItems", 1),
        ("build-image", "dynamodb.UpdateItem", 1),
        ("build-image", "states.StartExecution", 1),
        ("prepare-build", "dynamodb.PutItem", 1),
        ("prepare-build", "s3.PUT object", 1),
        ("start-runner", "dynamodb.PutItem", 1),
        ("start-runner", "codebuild.StartBuild", 1),
        ("start-runner", "dynamodb.PutItem", 2),
        ("ciab-runner", "s3.PUT object", 1),
        ("ciab-runner", "states.SendTaskHeartbeat", 1),
        ("ciab-runner", "states.SendTaskSuccess", 1),
        ("finish-build", "dynamodb.TransactWriteItems", 1),
        ("finish-build", "dynamodb.UpdateItem", 1),
    ];
    for (program, call, nth) in of_ours {
        let mut scenario =
            lost(Pattern::call(call).by(program).nth(nth), &format!("{program}'s"), End::Succeeded);
        scenario.in_tests = call == "codebuild.StartBuild";
        all.push(scenario);
    }
    for call in
        ["ec2.TerminateInstances", "ec2.DeleteSecurityGroup", "ec2.DeleteKeyPair", "codebuild.StopBuild"]
    {
        let before = while_provisioning();
        let victims = if call == "codebuild.StopBuild" { Victim::Execution } else { Victim::Packer };
        let pattern = match call {
            "codebuild.StopBuild" => Pattern::call(call),
            _ => Pattern::call(call).by("clean-up"),
        };
        let mut scenario = lost(pattern, "clean-up's", End::Failed);
        scenario.work = before.work;
        scenario.steps.insert(0, Step { moment: before.moment, harm: Harm::Kill(vec![victims]) });
        all.push(scenario);
    }
    for call in ["ec2.DeregisterImage", "ec2.DeleteSnapshot"] {
        // An AMI that is there and not known to be complete has to go again, or is adopted.
        let before = as_the_image_is_asked_for();
        let mut scenario = lost(Pattern::call(call), "clean-up's", End::Failed);
        scenario.steps.insert(0, Step { moment: before.moment, harm: Harm::Kill(vec![Victim::Machine]) });
        all.push(scenario);
    }
    all
}

fn lost(pattern: Pattern, whose: &str, end: End) -> Scenario {
    let number = if pattern.nth > 1 { format!(" no. {}", pattern.nth) } else { String::new() };
    Scenario {
        name: format!("the reply to {whose} {}{number} is lost", pattern.call),
        work: Work::Brief,
        steps: vec![Step { moment: Moment::Call(pattern), harm: Harm::LoseReply }],
        end,
        timeout_secs: None,
        in_tests: false,
    }
}

fn cancelled() -> Vec<Scenario> {
    let while_preparing = At {
        when: "while it is prepared",
        work: Work::Brief,
        moment: Moment::Call(
            Pattern::call("s3.PUT object").by("prepare-build").containing("template.tar.gz"),
        ),
        may_have_image: false,
    };
    let while_starting = At {
        when: "while its runner is started",
        work: Work::Brief,
        moment: Moment::Call(Pattern::call("codebuild.StartBuild").by("start-runner")),
        may_have_image: false,
    };
    let moments = [
        while_preparing,
        while_starting,
        before_the_instance(),
        while_provisioning(),
        as_the_image_is_asked_for(),
        while_the_image_is_made(),
        after_the_image(),
    ];
    let mut all: Vec<Scenario> = moments
        .into_iter()
        .map(|at| {
            let in_tests = matches!(at.when, "while its runner is started" | "while the AMI is made");
            let name = format!("the build is cancelled {}", at.when);
            Scenario { end: End::Cancelled, in_tests, ..scenario(name, at, Harm::Cancel { by: 1 }) }
        })
        .collect();
    let at = while_provisioning();
    let mut twice = scenario(
        "the build is cancelled by two at once, and again after its end".to_owned(),
        at,
        Harm::Cancel { by: 2 },
    );
    twice.end = End::Cancelled;
    twice.in_tests = true;
    twice.steps.push(Step { moment: Moment::Ended, harm: Harm::CancelTooLate });
    all.push(twice);
    let at = while_provisioning();
    let mut cleaning = scenario(
        "the build is cancelled while it is cleaned up".to_owned(),
        at,
        Harm::Kill(vec![Victim::Machine]),
    );
    // By whoever gets to it first: Packer is dead.
    let deleting = Moment::Call(Pattern::call("ec2.TerminateInstances"));
    cleaning.steps.push(Step { moment: deleting, harm: Harm::Cancel { by: 1 } });
    all.push(cleaning);
    let steps = vec![Step { moment: Moment::Ended, harm: Harm::CancelTooLate }];
    all.push(Scenario {
        name: "a build that succeeded is cancelled".to_owned(),
        work: Work::Brief,
        steps,
        end: End::Succeeded,
        timeout_secs: None,
        in_tests: true,
    });
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_scenario_has_a_name_of_its_own_and_some_are_for_the_tests() {
        let all = scenarios();
        let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        let in_tests = all.iter().filter(|scenario| scenario.in_tests).count();
        assert!((8..=16).contains(&in_tests), "{in_tests}");
    }

    #[test]
    fn only_a_process_whose_call_is_held_is_killed_as_its_caller() {
        for scenario in scenarios() {
            for step in &scenario.steps {
                let needs_call = match &step.harm {
                    Harm::Kill(victims) => victims.contains(&Victim::Caller),
                    Harm::LoseReply => true,
                    Harm::Cancel { .. } | Harm::CancelTooLate => false,
                };
                assert!(!needs_call || matches!(step.moment, Moment::Call(_)), "{}", scenario.name);
            }
        }
    }
}
