//! The same harm done to a bare `packer build`, for comparison: what it leaves, stays.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use local_stack::Inventory;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::{Harm, Moment, Rig, Scenario, Step, Victim};
use crate::proxy::{Fate, Trap};
use crate::{eventually, templates};

/// What came of a bare `packer build`.
#[derive(Debug)]
pub struct BareOutcome {
    /// Whether Packer said that it succeeded.
    pub succeeded: bool,
    /// What EC2 holds that it did not before, but for the AMI that Packer succeeded with.
    pub left: Vec<String>,
}

/// The same for a bare Packer.
enum BareHarm {
    /// Its whole group dies, as it does with its runner or the runner's machine.
    Kill,
    /// It is asked to end, and may clean up.
    Terminate,
    LoseReply,
}

/// The first step, if there is the like of it without our functions.
fn bare_step(scenario: &Scenario) -> Option<(&Step, BareHarm)> {
    let step = scenario.steps.first()?;
    let reaches_packer = match &step.moment {
        Moment::Logged(_) => true,
        Moment::Call(pattern) => pattern.by == Some("packer"),
        Moment::Ended => false,
    };
    let harm = match &step.harm {
        Harm::Kill(victims) => {
            let dies = |victim: &Victim| matches!(victim, Victim::Runner | Victim::Packer | Victim::Machine);
            victims.iter().any(dies).then_some(BareHarm::Kill)?
        }
        Harm::LoseReply => BareHarm::LoseReply,
        Harm::Cancel { .. } => BareHarm::Terminate,
        Harm::CancelTooLate => return None,
    };
    reaches_packer.then_some((step, harm))
}

impl Rig {
    /// Does the like of the scenario to a bare `packer build` against the same EC2; none where there is none, or where its
    /// moment never comes: a template without our tags makes some calls less.
    pub fn run_bare(&self, packer: &Path, scenario: &Scenario) -> Result<Option<BareOutcome>> {
        let Some((step, harm)) = bare_step(scenario) else { return Ok(None) };
        let before = Inventory::take(&self.scene.ec2)?;
        let trap = match &step.moment {
            Moment::Call(pattern) => Some(self.proxy.hold(pattern.clone())),
            Moment::Logged(_) | Moment::Ended => None,
        };
        let folder = tempfile::tempdir().context("make a folder for a bare Packer")?;
        let template = templates::with_script(&scenario.work.script());
        let template = templates::for_bare_packer(&template, &self.proxy.url());
        fs::write(folder.path().join("template.pkr.hcl"), template)?;
        let mut bare = Bare(start(packer, folder.path())?);
        let Some(status) = bare.suffer(step, &harm, trap.as_ref(), folder.path())? else { return Ok(None) };
        if let Some(trap) = &trap {
            // What Packer had sent arrives even though Packer is gone.
            eventually("the call that was under way is over", || Ok(trap.is_over().then_some(())))?;
        }
        let left = Inventory::take(&self.scene.ec2)?.beyond(&before);
        let made = if status.success() { self.image_among(&left)? } else { Vec::new() };
        let left = left.into_iter().filter(|item| !made.contains(item)).collect();
        Ok(Some(BareOutcome { succeeded: status.success(), left }))
    }

    /// The newest AMI among these and its snapshots: what a Packer that succeeded has made.
    fn image_among(&self, left: &[String]) -> Result<Vec<String>> {
        let Some(image) = left.iter().rev().find(|item| item.starts_with("image ")) else {
            return Ok(Vec::new());
        };
        let id = image.trim_start_matches("image ");
        let answer = self.scene.ec2.call("DescribeImages", &[("ImageId.1", id)])?;
        let snapshots = answer.texts("imagesSet/item/blockDeviceMapping/item/ebs/snapshotId");
        Ok(snapshots.into_iter().map(|id| format!("snapshot {id}")).chain([image.clone()]).collect())
    }
}

fn start(packer: &Path, folder: &Path) -> Result<Child> {
    let log = File::create(folder.join("log")).context("create a log for a bare Packer")?;
    Command::new(packer)
        .args(["build", "-color=false", "-var", "region=us-east-1", "."])
        .current_dir(folder)
        // The endpoint checks no signatures; Packer wants credentials all the same.
        .envs([
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("AWS_REGION", "us-east-1"),
        ])
        .env("CHECKPOINT_DISABLE", "1")
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("start a bare Packer")
}

/// A Packer in a group of its own, which goes with this.
struct Bare(Child);

impl Bare {
    /// Waits for the step's moment, harms, and waits for the end; none where it has ended well without that moment.
    fn suffer(
        &mut self,
        step: &Step,
        harm: &BareHarm,
        trap: Option<&Trap>,
        folder: &Path,
    ) -> Result<Option<ExitStatus>> {
        let log = folder.join("log");
        let has_come = eventually("the moment in a bare build", || {
            let come = match (&step.moment, trap) {
                (Moment::Logged(text), _) => fs::read_to_string(&log)?.contains(text),
                (_, Some(trap)) => trap.caught().is_some(),
                (_, None) => false,
            };
            if !come && let Some(status) = self.0.try_wait()? {
                let said = fs::read_to_string(&log)?;
                ensure!(status.success(), "a bare Packer ended ({status}) before its moment came:\n{said}");
                return Ok(Some(false));
            }
            Ok(come.then_some(true))
        })?;
        if !has_come {
            return Ok(None);
        }
        match harm {
            BareHarm::Kill => killpg(self.group()?, Signal::SIGKILL)?,
            BareHarm::Terminate => kill(self.group()?, Signal::SIGTERM)?,
            BareHarm::LoseReply => {}
        }
        if let Some(trap) = trap {
            trap.decide(if matches!(harm, BareHarm::LoseReply) { Fate::LoseReply } else { Fate::Pass });
        }
        eventually("a bare Packer ends", || Ok(self.0.try_wait()?)).map(Some)
    }

    fn group(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.0.id())?))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if let (Ok(None), Ok(group)) = (self.0.try_wait(), self.group()) {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}
