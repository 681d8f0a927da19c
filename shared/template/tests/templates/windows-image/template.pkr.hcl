source "amazon-ebs" "windows" {
  ami_name       = "windows-{{isotime \"2006\"}}"
  instance_type  = "t3.medium"
  region         = "us-east-1"
  communicator   = "winrm"
  winrm_username = "Administrator"
  winrm_use_ssl  = true
  user_data      = <<EOF
<powershell>
$tags = @{ "run_tags" = "{}" }
Write-Output "${"$"}{env:USERNAME} $${HOME}"
</powershell>
EOF

  source_ami_filter {
    filters = {
      name       = "Windows_Server-2019-English-Full-Base-*"
      "tag:tags" = "tags"
    }
    most_recent = true
    owners      = ["amazon"]
  }
}

build {
  sources = ["amazon-ebs.windows"]

  provisioner "powershell" {
    inline = ["Get-ChildItem Env:"]
  }
}
