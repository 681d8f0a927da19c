source "amazon-ebs" "base" {
  ami_name = "provisioners"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
}

source "null" "other" {
  communicator = "none"
}

build {
  name        = "all"
  description = "Everything that may stand in a build."
  sources     = ["amazon-ebs.base", "null.other"]

  provisioner "shell" {
    only             = ["amazon-ebs.base"]
    environment_vars = ["run_tags={}"]
    inline           = ["echo '${build.ID}' \"$USER\""]
    override = {
      "amazon-ebs.base" = { inline = ["true"] }
    }
  }

  provisioner "file" {
    except      = ["null.other"]
    source      = "template.pkr.hcl"
    destination = "/tmp/x"
  }

  post-processor "manifest" {
    only = ["amazon-ebs.base"]
  }

  post-processors {
    post-processor "checksum" {
      output = "{{.BuildName}}.sum"
    }
    post-processor "manifest" {
      strip_path = true
    }
  }
}
