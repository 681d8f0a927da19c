source "amazon-ebs" "base" {
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  tags          = { Name = "in the source" }
}
