source "amazon-ebs" "base" {
  ami_name = "two-{{timestamp}}"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}

build {
  name    = "first"
  sources = ["source.amazon-ebs.base"]
}

build {
  name = "second"

  source "source.amazon-ebs.base" {
    name                    = "again"
    temporary_key_pair_name = "mine"
  }
}
