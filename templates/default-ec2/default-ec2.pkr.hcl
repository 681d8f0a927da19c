# A machine image with a coding agent and what it works with, on the latest Ubuntu 22.04 LTS.
# Reads as plain Packer on purpose: tags and endpoints are added by whoever builds it.

locals {
  # Graviton families carry a g after their generation (t4g, m7gd, im4gn); a1 came before that rule.
  instance_family = element(split(".", var.instance_type), 0)
  architecture    = regex_replace(local.instance_family, "^(a1|[a-z-]+[0-9]+[a-z-]*g.*)$", "") == "" ? "arm64" : "x86_64"

  # How Ubuntu spells the architecture in the names of its images.
  ubuntu_architecture = local.architecture == "arm64" ? "arm64" : "amd64"

  # The time is for the reader; the id is what keeps two builds of one second apart.
  build_time = formatdate("YYYYMMDDhhmmss", timestamp())
  unique_id  = var.ciab_build_id != "" ? var.ciab_build_id : uuidv4()
}

source "amazon-ebs" "agent" {
  region        = var.region
  instance_type = var.instance_type
  ami_name      = "ciab-${var.provider}-${local.build_time}-${local.unique_id}"

  ami_description = "${var.provider} on Ubuntu 22.04 LTS, ${local.architecture}"

  source_ami_filter {
    filters = {
      name                = "ubuntu/images/hvm-ssd*/ubuntu-jammy-22.04-${local.ubuntu_architecture}-server-*"
      architecture        = local.architecture
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
    owners      = ["099720109477"]
    most_recent = true
  }

  # Without a subnet Packer takes the default VPC, whose subnets give public addresses by themselves; saying anything
  # there, even false, would override that.
  subnet_id                   = var.subnet_id
  associate_public_ip_address = var.subnet_id == "" ? null : var.associate_public_ip_address

  ssh_username = "ubuntu"
}

build {
  sources = ["source.amazon-ebs.agent"]

  provisioner "file" {
    source      = "${path.root}/provision"
    destination = "/tmp"
  }

  # Values travel as environment variables, which Packer quotes; none of them ever becomes part of a script.
  provisioner "shell" {
    environment_vars = [
      "CIAB_PROVIDER=${var.provider}",
      "CIAB_AGENT_VERSION=${var.agent_version}",
      "CIAB_TOOLCHAINS=${var.toolchains}",
      "CIAB_NODE_VERSION=${var.node_version}",
      "CIAB_GO_VERSION=${var.go_version}",
      "CIAB_RUST_VERSION=${var.rust_version}",
      "CIAB_EXTRA_PACKAGES=${var.extra_packages}",
      "CIAB_NODE_MIRROR=${var.node_mirror}",
      "CIAB_GO_MIRROR=${var.go_mirror}",
      "CIAB_RUST_MIRROR=${var.rust_mirror}",
      "CIAB_NPM_REGISTRY=${var.npm_registry}",
      "CIAB_CURSOR_INSTALLER_URL=${var.cursor_installer_url}",
      "CIAB_BUILD_ID=${var.ciab_build_id}",
      "CIAB_TEMPLATE_DIGEST=${var.ciab_template_digest}",
      "CIAB_BASE_IMAGE=${build.SourceAMI}",
    ]
    execute_command = "sudo -H env {{ .Vars }} bash -e {{ .Path }}"
    inline          = ["exec bash /tmp/provision/main.sh"]
  }
}
