# Packer 1.7 and later read this.
packer {
  required_version = ">= 1.6.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.8"
    }
  }
}
