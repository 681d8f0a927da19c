variable "endpoint" { default = "https://ec2.us-east-1.amazonaws.com" }

source "amazon-ebs" "base" {
  ami_name                = "endpoints"
  instance_type           = "t3.micro"
  region                  = "us-east-1"
  source_ami              = "ami-0123456789abcdef0"
  ssh_username            = "ubuntu"
  custom_endpoint_ec2     = var.endpoint
  skip_metadata_api_check = false
}

build {
  sources = ["amazon-ebs.base"]
}
