variable "names" {
  type    = list(string)
  default = ["one", "two"]
}

source "amazon-ebs" "base" {
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}

build {
  dynamic "source" {
    for_each = var.names
    labels   = ["amazon-ebs.base"]
    content {
      name     = source.value
      ami_name = source.value
      run_tags = { Name = source.value }
    }
  }
}
