variable "tags" {
  type    = map(string)
  default = { Team = "images" }
}

variable "more" {
  type    = list(map(string))
  default = []
}

locals {
  tags = merge(var.tags, { Name = "base" })
}

source "amazon-ebs" "variable" {
  ami_name      = "variable"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  run_tags        = var.tags
  run_volume_tags = local.tags
  tags            = merge(local.tags, { Kind = "ami" })
  snapshot_tags   = merge(local.tags, var.more...)
}

source "amazon-ebs" "computed" {
  ami_name      = "computed"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  run_tags        = { for key, value in var.tags : key => upper(value) }
  run_volume_tags = length(var.tags) > 0 ? var.tags : { Team = "none" }
  tags = (
    merge(
      var.tags,  # a comment that stays
      { Name = "computed" },
    )
  )
  snapshot_tags = merge({
    Name = "computed"
  })
}

source "amazon-ebs" "nothing" {
  ami_name      = "nothing"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  run_tags        = null
  run_volume_tags = {}
  tags = { # nothing yet
  }
  snapshot_tags = {
  }
}

build {
  sources = ["amazon-ebs.variable", "source.amazon-ebs.computed", "amazon-ebs.nothing"]
}
