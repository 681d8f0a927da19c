variable "choices" {
  type    = list(map(string))
  default = [{ Name = "first" }, { Name = "second" }]
}

source "amazon-ebs" "base" {
  ami_name = "lists"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  tags            = var.choices[0]
  run_tags        = element(var.choices, 1)
  run_volume_tags = merge(var.choices...)
  snapshot_tags   = zipmap(["Name"], [var.choices[1].Name])
}

build {
  sources = ["amazon-ebs.base"]
}
