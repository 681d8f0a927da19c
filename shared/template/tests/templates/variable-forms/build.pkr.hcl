source "amazon-ebs" "base" {
  ami_name      = "variables"
  instance_type = var.instance_type
  region        = var.region
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  ssh_password  = var.password
  run_tags      = var.tags

  launch_block_device_mappings {
    device_name = "/dev/sda1"
    volume_size = var.size
  }
}

build {
  sources = ["amazon-ebs.base"]
}
