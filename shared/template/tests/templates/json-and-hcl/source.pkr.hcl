source "amazon-ebs" "base" {
  instance_type = var.instance_type
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}
