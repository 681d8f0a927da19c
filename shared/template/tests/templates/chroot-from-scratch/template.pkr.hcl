source "amazon-chroot" "scratch" {
  ami_name                = "scratch"
  region                  = "us-east-1"
  from_scratch            = true
  ami_virtualization_type = "hvm"
  root_device_name        = "xvda"
  root_volume_size        = 10

  ami_block_device_mappings {
    device_name           = "xvda"
    delete_on_termination = true
  }

  pre_mount_commands = ["mkfs.ext4 {{.Device}}"]
  snapshot_tags      = { Name = "scratch" }

  root_volume_tag {
    key   = "ciab:build-id"
    value = "theirs"
  }
}

build {
  sources = ["amazon-chroot.scratch"]
}
