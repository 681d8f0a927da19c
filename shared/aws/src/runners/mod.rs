//! Where Packer runs: CodeBuild and EC2, behind one port. A runner's id says which of the two it is on.
//!
//! Must never start a second runner for a build by itself: the build id is the services' idempotency token, and everything
//! in the request follows from the order alone, so that a repeated order is the same request.

mod codebuild;
mod ec2;
mod user_data;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use ciab_core::build::RunnerKind;
use ciab_core::ids::BuildId;
use ciab_core::ports::{PortError, RunnerOrder, RunnerState, Runners};

pub use codebuild::CodeBuildRunners;
pub use ec2::{Ec2RunnerSettings, Ec2Runners};

/// Runners of both kinds.
#[derive(Debug, Clone)]
pub struct AwsRunners {
    /// Those on CodeBuild.
    pub codebuild: CodeBuildRunners,
    /// Those on EC2.
    pub ec2: Ec2Runners,
}

impl AwsRunners {
    fn of(&self, kind: RunnerKind) -> &dyn Runners {
        match kind {
            RunnerKind::Codebuild => &self.codebuild,
            RunnerKind::Ec2 => &self.ec2,
        }
    }
}

/// An instance's id is `i-` and digits; a CodeBuild build's has its project's name before a colon.
fn kind_of(id: &str) -> RunnerKind {
    if id.starts_with("i-") && !id.contains(':') { RunnerKind::Ec2 } else { RunnerKind::Codebuild }
}

#[async_trait]
impl Runners for AwsRunners {
    async fn start(&self, order: &RunnerOrder) -> Result<String, PortError> {
        self.of(order.kind).start(order).await
    }

    async fn of_builds(
        &self,
        kind: RunnerKind,
        builds: &BTreeSet<BuildId>,
    ) -> Result<BTreeMap<BuildId, BTreeSet<String>>, PortError> {
        self.of(kind).of_builds(kind, builds).await
    }

    async fn states(&self, ids: &BTreeSet<String>) -> Result<BTreeMap<String, RunnerState>, PortError> {
        let (on_ec2, on_codebuild): (BTreeSet<String>, BTreeSet<String>) =
            ids.iter().cloned().partition(|id| kind_of(id) == RunnerKind::Ec2);
        let (mut states, more) =
            futures::future::try_join(self.codebuild.states(&on_codebuild), self.ec2.states(&on_ec2)).await?;
        states.extend(more);
        Ok(states)
    }

    async fn stop(&self, id: &str) -> Result<(), PortError> {
        self.of(kind_of(id)).stop(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runners_id_says_where_it_is() {
        assert_eq!(kind_of("i-0abcdef1234567890"), RunnerKind::Ec2);
        assert_eq!(kind_of("i-am-a-project:11111111-2222-3333-4444-555555555555"), RunnerKind::Codebuild);
        assert_eq!(kind_of("ciab-runner:11111111-2222-3333-4444-555555555555"), RunnerKind::Codebuild);
    }
}
