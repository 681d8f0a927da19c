build {
  source "source.amazon-ebs.base" {
    name     = "one"
    ami_name = "hcl-and-json"
    run_tags = { Name = "in the build" }
  }
}
