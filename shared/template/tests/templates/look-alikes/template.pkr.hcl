source "amazon-ebs" "base" {
  ami_name        = "look-alikes"
  ami_description = "run_tags = {}"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  source_ami_filter {
    filters = {
      "tag:Name" = "tags"
      tags       = "run_tags"
    }
    most_recent = true
    owners      = ["self"]
  }

  launch_block_device_mappings {
    device_name = "/dev/sda1"
    volume_size = 8
  }

  subnet_filter {
    filters = { "tag:run_tags" = "x" }
    random  = true
  }
}

locals {
  run_tags = { source = "amazon-ebs" }
  source   = "amazon-ebs.base"
}

build {
  sources = ["amazon-ebs.base"]

  provisioner "shell" {
    inline = ["echo source amazon-ebs x { run_tags = {} }"]
  }
}
