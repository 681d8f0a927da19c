

source "amazon-ebs" "base" {

  ami_name = "empty"

  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"


}



build {

  sources = ["amazon-ebs.base"]

}


