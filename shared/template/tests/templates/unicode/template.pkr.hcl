# Für Umläute – 図
source "amazon-ebs" "base" {
  ami_name        = "unicode"
  ami_description = "図 \u00e9 \"quoted\" 😀"
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"

  tags = { "Größe" = "klein 😀", Name = "été" }
  run_tags = {
    "图" = "一" # 尾
  }
}

build { sources = ["amazon-ebs.base"] }
