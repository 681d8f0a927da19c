//! Which step of a build Packer is at, by the words that its Amazon builders begin a step with (1.6.6 and the plugin of
//! today say the same).
//!
//! Newer Packers show a provisioner's output in the same form as their own words, so a step is only as sure as its words are
//! unlikely in a script. Must never be the proof of anything that is deleted.

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A provisioner begins.
    Provision,
    /// The provisioners have all ended; the AMI is being made, or made ready for.
    MakeImage,
    /// The AMI is copied to other regions, or within its own to be encrypted.
    CopyImage,
    /// The AMI gets its tags: the last step of every Amazon builder, after all copies and changes.
    TagImage,
    /// A post-processor begins.
    PostProcess,
    /// Packer takes away what it made.
    CleanUp,
    /// Anything else.
    Other,
}

const PROVISION: [&str; 10] = [
    "Provisioning with",
    "Running local shell script",
    "Executing Ansible",
    "Uploading ",
    "Downloading ",
    "Pausing ",
    "Restarting Machine",
    "Waiting for machine to restart",
    "Waiting for Cloud-Init",
    "Executing puppet",
];
const MAKE_IMAGE: [&str; 13] = [
    "Stopping the source instance",
    "Waiting for the instance to stop",
    "Enabling Enhanced Networking",
    "Enabling SR-IOV",
    "Creating AMI ",
    "Creating the AMI",
    "Waiting for AMI to become ready",
    "Registering the AMI",
    "Creating snapshot",
    "Detaching EBS volume",
    "Unmounting the root device",
    "Bundling the volume",
    "Uploading the bundle",
];
const CLEAN_UP: [&str; 11] = [
    "Provisioning step had errors",
    "Terminating the source AWS instance",
    "Cleaning up any extra volumes",
    "No volumes to clean up",
    "Destroying volume",
    "Deleting temporary",
    "Detaching temporary",
    "Removing policy from temporary",
    "Removing snapshots since",
    "Deregistering the AMI",
    "Deleting the created EBS volume",
];

impl Step {
    /// The step that begins with these words.
    pub fn of(said: &str) -> Self {
        let begins = |words: &[&str]| words.iter().any(|words| said.starts_with(words));
        if said == "Creating AMI tags" || said == "Creating snapshot tags" {
            Self::TagImage
        } else if begins(&CLEAN_UP) {
            Self::CleanUp
        } else if begins(&MAKE_IMAGE) {
            Self::MakeImage
        } else if begins(&PROVISION) {
            Self::Provision
        } else if said.starts_with("Copying/Encrypting AMI (") {
            Self::CopyImage
        } else if said.starts_with("Adding tags to AMI (") {
            Self::TagImage
        } else if said.starts_with("Running post-processor: ") {
            Self::PostProcess
        } else {
            Self::Other
        }
    }
}
