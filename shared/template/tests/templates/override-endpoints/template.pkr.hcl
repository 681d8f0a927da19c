source "amazon-ebs" "base" {
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}

build {
  source "amazon-ebs.base" {
    ami_name                = "over-one"
    custom_endpoint_ec2     = "https://ec2.example.com"
    skip_metadata_api_check = false
    tags                    = merge({ Name = "over" }, {})
  }
}
