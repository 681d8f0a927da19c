source "amazon-ebs" "base" {
  ami_name      = "base-${formatdate("YYYYMMDD", timestamp())}"
  instance_type = "t3.micro"
  region        = var.region
  ssh_username  = "ubuntu"

  source_ami_filter {
    filters = {
      name = "ubuntu/images/*"
    }
    owners      = ["099720109477"]
    most_recent = true
  }
}
