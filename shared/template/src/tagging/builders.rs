//! What each of Amazon's builders takes. Measured with `packer validate` on 1.6.6, and read in the configuration
//! reference of HashiCorp's Amazon plugin for later versions, which takes all of the same.

/// One of Amazon's builders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AmazonBuilder {
    Ebs,
    EbsSurrogate,
    EbsVolume,
    Chroot,
    Instance,
}

impl AmazonBuilder {
    /// The builder of a source of this type, or `None` where it is not Amazon's.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "amazon-ebs" => Self::Ebs,
            "amazon-ebssurrogate" => Self::EbsSurrogate,
            "amazon-ebsvolume" => Self::EbsVolume,
            "amazon-chroot" => Self::Chroot,
            "amazon-instance" => Self::Instance,
            _ => return None,
        })
    }

    /// The attributes that tag what exists only while it builds, or besides the AMI.
    pub(super) fn resource_tags(self) -> &'static [&'static str] {
        match self {
            Self::Ebs | Self::EbsSurrogate => &["run_tags", "run_volume_tags", "snapshot_tags"],
            Self::EbsVolume => &["run_tags", "run_volume_tags"],
            // It builds on the machine it runs on: there is no instance of its own.
            Self::Chroot => &["root_volume_tags", "snapshot_tags"],
            Self::Instance => &["run_tags", "snapshot_tags"],
        }
    }

    /// Whether it makes an AMI, and so has `tags`.
    pub(super) fn makes_ami(self) -> bool {
        self != Self::EbsVolume
    }

    /// Whether it starts an instance of its own.
    pub(super) fn runs_instance(self) -> bool {
        self != Self::Chroot
    }

    /// Whether `shutdown_behavior` means anything: instances with an instance store can't be stopped, and EC2 refuses
    /// the attribute for them.
    pub(super) fn has_shutdown_behavior(self) -> bool {
        matches!(self, Self::Ebs | Self::EbsSurrogate | Self::EbsVolume)
    }

    /// Whether it knows `skip_region_validation`, which belongs to AMIs.
    pub(super) fn has_skip_region_validation(self) -> bool {
        self.makes_ami()
    }
}

/// The tag attributes that only sources with certain other settings may have: merged into where the author set them.
pub(super) const OPTIONAL_TAGS: [&str; 2] = ["spot_tags", "fleet_tags"];
