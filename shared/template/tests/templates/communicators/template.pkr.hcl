source "amazon-ebs" "none" {
  ami_name      = "none"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  communicator  = "none"
}

source "amazon-ebs" "password" {
  ami_name      = "password"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  ssh_password  = "ubuntu"
}

source "amazon-ebs" "agent" {
  ami_name          = "agent"
  instance_type     = "t3.micro"
  region            = "us-east-1"
  source_ami        = "ami-0123456789abcdef0"
  ssh_username      = "ubuntu"
  ssh_keypair_name  = "mine"
  ssh_agent_auth    = true
  shutdown_behavior = "stop"
}

source "amazon-ebs" "windows" {
  ami_name              = "windows"
  instance_type         = "t3.micro"
  region                = "us-east-1"
  source_ami            = "ami-0123456789abcdef0"
  communicator          = "winrm"
  winrm_username        = "Administrator"
  disable_stop_instance = true
}

build {
  sources = ["amazon-ebs.none", "amazon-ebs.password", "amazon-ebs.agent", "amazon-ebs.windows"]
}
