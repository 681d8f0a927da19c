variable "tags" {
  type    = map(string)
  default = { Team = "images" }
}

source "amazon-ebs" "base" {
  ami_name      = "tag-blocks"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  run_tag {
    key   = "Name"
    value = "stays"
  }

  run_tag {
    key   = "ciab:build-id"
    value = "would win over ours"
  }

  dynamic "tag" {
    for_each = var.tags
    content {
      key   = tag.key
      value = tag.value
    }
  }

  dynamic "snapshot_tag" {
    for_each = ["x"]
    content {
      key   = "ciab:stack"
      value = snapshot_tag.value
    }
  }
}

build {
  sources = ["amazon-ebs.base"]
}
