# Nothing is left of this file where plugins are unknown.
packer {
  required_plugins {
    shell = {
      source  = "github.com/hashicorp/shell"
      version = ">= 1.0.0"
    }
  }
}
