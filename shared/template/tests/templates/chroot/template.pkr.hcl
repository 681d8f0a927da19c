source "amazon-chroot" "base" {
  ami_name         = "chroot"
  region           = "us-east-1"
  source_ami       = "ami-0123456789abcdef0"
  root_volume_tags = { Name = "root" }
}

source "null" "other" {
  communicator = "none"
}

build {
  sources = ["amazon-chroot.base", "null.other"]
}
