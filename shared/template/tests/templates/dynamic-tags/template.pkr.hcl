variable "tags" {
  type    = map(string)
  default = { Team = "images", "ciab:stack" = "theirs" }
}

source "amazon-ebs" "base" {
  ami_name = "dynamic"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  dynamic "tag" {
    for_each = var.tags
    content {
      key   = tag.key
      value = tag.value
    }
  }

  dynamic "run_tag" {
    for_each = ["one"]
    iterator = each
    content {
      key   = "ciab:build-id"
      value = each.value
    }
  }
}

build {
  sources = ["amazon-ebs.base"]
}
