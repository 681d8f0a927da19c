# The one block that Packer before 1.7 refuses; the service leaves this file out for those versions.
# From Packer 1.10 on the Amazon builder is a plugin that `packer init` has to fetch.
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.8, < 2.0.0"
    }
  }
}
