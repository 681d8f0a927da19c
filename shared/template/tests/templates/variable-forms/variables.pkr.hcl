variables {
  region = "us-east-1"
  size   = 8
}

variable "instance_type" {
  type        = string
  description = "Needed: no default."
}

variable "tags" {
  type    = object({ Name = string, Team = string })
  default = { Name = "x", Team = "y" }
}

variable "password" {
  type      = string
  sensitive = true
  default   = "s3cret"
}
