build {
  source "amazon-ebs.base" {
    name     = "one"
    ami_name = "one"
    run_tags = { Name = "in the build" }
  }

  source "source.amazon-ebs.base" {
    name     = "two"
    ami_name = "two"

    shutdown_behavior = "stop"
  }
}
