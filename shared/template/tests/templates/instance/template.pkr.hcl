source "amazon-instance" "base" {
  ami_name       = "instance"
  instance_type  = "m3.medium"
  region         = "us-east-1"
  source_ami     = "ami-0123456789abcdef0"
  ssh_username   = "ubuntu"
  account_id     = "123456789012"
  s3_bucket      = "images"
  x509_cert_path = "certificate.pem"
  x509_key_path  = "certificate.pem"
}

build {
  sources = ["amazon-instance.base"]
}
