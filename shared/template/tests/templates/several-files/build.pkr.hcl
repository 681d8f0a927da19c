build {
  sources = [
    "source.amazon-ebs.base",
  ]

  provisioner "shell" {
    script = "${path.root}/provision/install.sh"
  }
}
