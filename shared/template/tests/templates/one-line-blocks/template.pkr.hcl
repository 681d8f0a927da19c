source "amazon-ebs" "empty" {}
source "amazon-ebs" "spaced" {   }
source "amazon-ebs" "one" { communicator = "none" }

build {
  source "amazon-ebs.empty" {
    ami_name      = "empty"
    instance_type = "t3.micro"
    region        = "us-east-1"
    source_ami    = "ami-0123456789abcdef0"
    ssh_username  = "ubuntu"
  }
  source "amazon-ebs.spaced" {
    ami_name      = "spaced"
    instance_type = "t3.micro"
    region        = "us-east-1"
    source_ami    = "ami-0123456789abcdef0"
    ssh_username  = "ubuntu"
  }
  source "amazon-ebs.one" {
    ami_name      = "one"
    instance_type = "t3.micro"
    region        = "us-east-1"
    source_ami    = "ami-0123456789abcdef0"
  }
}
