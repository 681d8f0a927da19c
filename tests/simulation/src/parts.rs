//! The core's parts, wired to the ports of one process as each function's `main.rs` wires them to AWS.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ciab_core::settings::Settings;
use ciab_core::{build_image, delete_image, poll_builds, prepare_build, reconcile, start_runner};

use crate::STACK;
use crate::ec2::{REGIONS, region};
use crate::world::Process;

fn settings(process: &Arc<Process>) -> Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    let common = SETTINGS.get_or_init(|| {
        let regions = REGIONS[..2].join(",");
        let pairs = BTreeMap::from([
            ("CIAB_STACK", STACK),
            ("CIAB_BUCKET", "bucket"),
            ("CIAB_DEFAULT_REGION", REGIONS[0]),
            ("CIAB_ALLOWED_REGIONS", regions.as_str()),
            ("CIAB_BUILD_INSTANCE_TYPE", "t3.medium"),
            ("CIAB_BUILD_TIMEOUT_SECS", "1800"),
            ("CIAB_TEMPLATE_SOURCE", "builtin://default-ec2"),
            ("CIAB_PACKER_VERSION", "1.11.2"),
        ]);
        match Settings::read(|name| pairs.get(name).map(|value| (*value).to_owned())) {
            Ok(settings) => settings,
            Err(error) => panic!("{error}"),
        }
    });
    Settings { concurrent_builds: slots(process), ..common.clone() }
}

fn slots(process: &Arc<Process>) -> u32 {
    process.world.state(|state| state.weather.slots)
}

pub(crate) fn build_image(process: &Arc<Process>) -> build_image::Deps {
    build_image::Deps {
        settings: settings(process),
        clock: process.clone(),
        identifiers: process.clone(),
        records: process.clone(),
        objects: process.clone(),
        workflows: process.clone(),
    }
}

pub(crate) fn prepare_build(process: &Arc<Process>) -> prepare_build::Deps {
    prepare_build::Deps {
        settings: settings(process),
        clock: process.clone(),
        records: process.clone(),
        objects: process.clone(),
        fetcher: process.clone(),
        secrets: process.clone(),
    }
}

pub(crate) fn start_runner(process: &Arc<Process>) -> start_runner::Deps {
    start_runner::Deps { clock: process.clone(), records: process.clone(), runners: process.clone() }
}

pub(crate) fn reconcile(process: &Arc<Process>) -> reconcile::Deps {
    reconcile::Deps {
        stack: STACK.into(),
        slots: slots(process),
        clock: process.clone(),
        records: process.clone(),
        objects: process.clone(),
        runners: process.clone(),
        cloud: process.clone(),
        workflows: process.clone(),
    }
}

pub(crate) fn poll_builds(process: &Arc<Process>) -> poll_builds::Deps {
    poll_builds::Deps { regions: vec![region(0), region(1)], reconcile: reconcile(process) }
}

pub(crate) fn delete_image(process: &Arc<Process>) -> delete_image::Deps {
    delete_image::Deps { stack: STACK.into(), records: process.clone(), cloud: process.clone() }
}
