source "amazon-ebssurrogate" "number" {
  ami_name                = "number"
  ami_virtualization_type = "hvm"
  source_ami              = "ami-0123456789abcdef0"
  region                  = "us-east-1"
  ssh_username            = "ubuntu"
  spot_price              = 0.05
  instance_type           = "t3.micro"

  launch_block_device_mappings {
    device_name = "/dev/xvdf"
    volume_size = 1
  }

  ami_root_device {
    source_device_name = "/dev/xvdf"
    device_name        = "/dev/xvda"
  }
}

source "amazon-ebs" "types" {
  ami_name            = "types"
  source_ami          = "ami-0123456789abcdef0"
  region              = "us-east-1"
  ssh_username        = "ubuntu"
  spot_price          = "auto"
  spot_instance_types = ["t3.micro", "t3a.micro"]

  spot_tags = merge({ Kind = "spot" }, { "ciab:stack" = "theirs" })
}

source "amazon-ebs" "no_spot" {
  ami_name   = "no-spot"
  spot_price = "0"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}

build {
  sources = ["amazon-ebssurrogate.number", "amazon-ebs.types", "amazon-ebs.no_spot"]
}
