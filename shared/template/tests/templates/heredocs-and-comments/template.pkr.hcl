/* source "amazon-ebs" "commented" {
   } */
source "amazon-ebs" "base" { # {
  ami_name      = "heredocs"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu" // }

  user_data = <<-EOF
    #!/bin/sh
    cat > /etc/motd <<'END'
      run_tags = { "not" = "ours" }
    }
    END
  EOF

  run_tags = {
    Note = <<EOF
a } that closes nothing
EOF
    Name = "after"
  }

  tags = {
    Name = "before"
    Note = <<-EOF
      last
    EOF
  }

  snapshot_tags = merge({ Note = "x" }, jsondecode(<<EOF
{"Name": "decoded"}
EOF
  ))
  # the end }
}

build {
  sources = ["amazon-ebs.base"]

  provisioner "shell" {
    inline = [<<EOF
echo "$${HOME}" "%%{x}"
EOF
    ]
  }
}
