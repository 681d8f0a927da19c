source "amazon-ebs" "one" {
  ami_name = "one-x"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}

source "amazon-ebssurrogate" "two" {
  ami_name                = "two-x"
  ami_virtualization_type = "hvm"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  launch_block_device_mappings {
    device_name = "/dev/xvdf"
    volume_size = 1
  }
  ami_root_device {
    source_device_name = "/dev/xvdf"
    device_name        = "/dev/xvda"
  }
}

source "amazon-ebsvolume" "three" {
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}

source "amazon-chroot" "four" {
  ami_name   = "four-x"
  region     = "us-east-1"
  source_ami = "ami-0123456789abcdef0"
}

source "amazon-instance" "five" {
  ami_name       = "five-x"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  account_id     = "123456789012"
  s3_bucket      = "images"
  x509_cert_path = "certificate.pem"
  x509_key_path  = "certificate.pem"
}

source "file" "six" {
  content = "run_tags"
  target  = "out"
}

build {
  sources = [
    "amazon-ebs.one",
    "amazon-ebssurrogate.two",
    "amazon-ebsvolume.three",
    "amazon-chroot.four",
    "amazon-instance.five",
    "file.six",
  ]
}
