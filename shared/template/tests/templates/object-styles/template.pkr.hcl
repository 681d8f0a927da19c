variable "key" { default = "Dynamic" }

source "amazon-ebs" "lines" {
  ami_name      = "lines"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  run_tags = {
      Name    = "wide indent"
      "Owner" = "${var.key} } team" # a } in a comment
      # the last word
  }
  run_volume_tags = {
    Name: "commas and colons",
    Owner: "team",
  }
  tags = {
    Name  = "brace beside the last"
    Owner = "team" }
  snapshot_tags = {
    Name = "one", Owner = "two",
    Last = "three" /* } */
  }
}

source "amazon-ebssurrogate" "one_line" {
  ami_name                = "one_line"
  instance_type           = "t3.micro"
  region                  = "us-east-1"
  source_ami              = "ami-0123456789abcdef0"
  ssh_username            = "ubuntu"
  ami_virtualization_type = "hvm"

  run_tags        = { Name = "one line" }
  run_volume_tags = {Name="tight"}
  tags            = { Name = "trailing comma", }
  snapshot_tags   = { Name : "colon", "Owner" : "team" }

  launch_block_device_mappings {
    device_name = "/dev/xvdf"
    volume_size = 1
  }

  ami_root_device {
    source_device_name = "/dev/xvdf"
    device_name        = "/dev/xvda"
  }
}

source "amazon-ebs" "keys" {
  ami_name      = "keys"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  run_tags        = { "ciab:build-id" = "mine", Name = "ours win" }
  run_volume_tags = { (var.key) = "a key that could be anything" }
  tags = {
    "${var.key}-x" = "the same"
    Name           = "x"
  }
  snapshot_tags = { 1 = "a number" }
}

build {
  sources = ["amazon-ebs.lines", "amazon-ebssurrogate.one_line", "amazon-ebs.keys"]
}
