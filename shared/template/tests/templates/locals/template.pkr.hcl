variable "environment" { default = "test" }

locals {
  standard = { Team = "images", Environment = var.environment }
}

locals {
  all     = merge(local.standard, { Name = "${var.environment}-base" })
  by_role = { web = local.all, worker = local.standard }
}

source "amazon-ebs" "web" {
  ami_name = "web-${local.standard.Team}"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  tags            = local.by_role.web
  run_tags        = local.by_role["worker"]
  run_volume_tags = var.environment == "test" ? local.all : local.standard
  snapshot_tags   = { for key, value in local.all : lower(key) => value if value != "" }
}

build {
  sources = ["amazon-ebs.web"]
}
