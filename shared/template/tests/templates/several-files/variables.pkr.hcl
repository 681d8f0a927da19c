variable "region" {
  type        = string
  description = "Where to build."
}

variable "secret" {
  type      = string
  sensitive = true
  default   = ""
}
