packer {
  required_version = ">= 1.11.0"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1"
    }
  }
}

variable "region" {
  type    = string
  default = "us-east-1"

  validation {
    condition     = length(var.region) > 4
    error_message = "A region is longer."
  }
}

data "amazon-ami" "ubuntu" {
  filters = {
    name = "ubuntu/images/*"
  }
  owners      = ["099720109477"]
  most_recent = true
  region      = var.region
}

source "amazon-ebs" "base" {
  ami_name      = "newer-{{timestamp}}"
  instance_type = "t3.micro"
  region        = var.region
  source_ami    = data.amazon-ami.ubuntu.id
  ssh_username  = "ubuntu"
  imds_support  = "v2.0"
  deprecate_at  = timeadd(timestamp(), "720h")

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  fleet_tags = { Name = "fleet" }
}

source "amazon-ebsvolume" "data" {
  instance_type = "t3.micro"
  region        = var.region
  source_ami    = data.amazon-ami.ubuntu.id
  ssh_username  = "ubuntu"

  ebs_volumes {
    device_name     = "/dev/xvdf"
    volume_size     = 1
    snapshot_volume = true
  }
}

build {
  sources = ["source.amazon-ebs.base", "source.amazon-ebsvolume.data"]
  hcp_packer_registry {}
}
