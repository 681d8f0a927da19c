source "amazon-ebs" "base" {
  ami_name     = "copies"
  ami_regions  = ["us-west-2", "eu-west-1"]
  ami_users    = ["123456789012"]
  encrypt_boot = true
  kms_key_id   = "alias/images"
  region_kms_key_ids = {
    us-west-2 = "alias/images"
    eu-west-1 = "alias/other"
  }
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  snapshot_users = []
  tags           = { Name : "copies", Team : "images" }
}

build {
  sources = ["amazon-ebs.base"]
}
