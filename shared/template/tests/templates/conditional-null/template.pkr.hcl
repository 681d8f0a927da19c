variable "tagged" {
  type    = bool
  default = false
}

source "amazon-ebs" "base" {
  ami_name = "conditional"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  tags              = var.tagged ? { Name = "x" } : {}
  run_tags          = (var.tagged ? { Name = "x" } : {})
  run_volume_tags   = !var.tagged && 1 + 2 * 3 > 4 ? { Name = "x" } : { Other = "y" }
  shutdown_behavior = var.tagged ? "stop" : "terminate"
}

build {
  sources = ["amazon-ebs.base"]
}
