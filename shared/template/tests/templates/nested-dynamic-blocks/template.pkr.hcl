locals {
  volumes = {
    "/dev/xvdf" = { Name = "one" }
    "/dev/xvdg" = { Name = "two" }
  }
}

source "amazon-ebsvolume" "data" {
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  dynamic "ebs_volumes" {
    for_each = local.volumes
    content {
      device_name = ebs_volumes.key
      volume_size = 1
      tags        = ebs_volumes.value

      dynamic "tag" {
        for_each = { Extra = "x" }
        content {
          key   = tag.key
          value = tag.value
        }
      }
    }
  }
}

build {
  sources = ["amazon-ebsvolume.data"]
}
