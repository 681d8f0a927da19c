variable "price" { default = "0.05" }

source "amazon-ebs" "plain" {
  ami_name      = "plain"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  spot_price    = "auto"
}

source "amazon-ebs" "tagged" {
  ami_name      = "tagged"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  spot_price    = var.price
  spot_tags     = { Name = "spot" }
}

source "amazon-ebs" "not" {
  ami_name      = "not"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  spot_price    = "0"
}

build {
  sources = ["amazon-ebs.plain", "amazon-ebs.tagged", "amazon-ebs.not"]
}
