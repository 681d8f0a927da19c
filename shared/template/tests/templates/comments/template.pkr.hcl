// source "amazon-ebs" "not" { run_tags = {} }
source "amazon-ebs" /* kind */ "base" /* name { */ {
  # run_tags = { Name = "commented" }
  ami_name = /* here { */ "comments" # }
  instance_type = "t3.micro"
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  ssh_username  = "ubuntu"
  tags = /* before */ { /* first { */ Name = "x" /* } after */ } // end
  run_tags = {
    // { nothing
    Name = "x", # {
    /* last } */
  } /* { */
  /* the end
     of } it */ }

build {
  sources = ["amazon-ebs.base"] # done
}
# }
