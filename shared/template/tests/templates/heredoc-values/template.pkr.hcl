source "amazon-ebs" "base" {
  ami_name = "heredocs"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  tags = merge({ Note = <<-EOF
      several
      lines }
    EOF
  }, { Name = "x" })
  run_tags = { Note = <<EOF
}
EOF
  }
  run_volume_tags = {
    A = trimspace(<<-EOF
      %{ if true }yes%{ else }no%{ endif }
    EOF
    )
    B = "%{ for x in ["a"] }${x}%{ endfor }"
  }
}

build {
  sources = ["amazon-ebs.base"]
}
