# What a build may be told. Every value is a string or a boolean, because the HTTP API passes no lists.
# The checks here stop a wrong value before anything is started; provision/values.sh checks again on the instance,
# where the values meet a shell. A pattern is tested with regex_replace, which Packer has had since 1.6
# ("nothing is left once the pattern is taken away" means it matched as a whole).

variable "provider" {
  type        = string
  default     = "claude-code"
  description = "The coding agent to install: claude-code, codex, gemini or cursor."
  validation {
    condition     = contains(["claude-code", "codex", "gemini", "cursor"], var.provider)
    error_message = "The provider must be one of claude-code, codex, gemini, cursor."
  }
}

variable "agent_version" {
  type        = string
  default     = "latest"
  description = "A version of the agent, or a tag its publisher keeps, such as latest. For cursor only latest."
  validation {
    condition     = var.agent_version != "" && regex_replace(var.agent_version, "^[0-9A-Za-z][0-9A-Za-z.-]{0,63}$", "") == ""
    error_message = "The agent_version must be a version such as 2.1.0 or a tag such as latest."
  }
}

variable "region" {
  type        = string
  default     = "us-east-1"
  description = "The AWS region in which the image is built and kept."
  validation {
    condition     = var.region != "" && regex_replace(var.region, "^[a-z]{2}(-[a-z]+)+-[0-9]+$", "") == ""
    error_message = "The region must be an AWS region such as eu-west-1."
  }
}

variable "instance_type" {
  type        = string
  default     = "t3.medium"
  description = "The type of the build instance; a Graviton family such as t4g makes an arm64 image, any other an x86_64 one."
  validation {
    condition     = var.instance_type != "" && regex_replace(var.instance_type, "^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", "") == ""
    error_message = "The instance_type must be an EC2 instance type such as t3.medium or t4g.medium."
  }
}

variable "subnet_id" {
  type        = string
  default     = ""
  description = "The subnet of the build instance; empty means the default VPC."
  validation {
    condition     = regex_replace(var.subnet_id, "^subnet-[0-9a-f]{8,17}$", "") == ""
    error_message = "The subnet_id must be empty or look like subnet-0123456789abcdef0."
  }
}

variable "associate_public_ip_address" {
  type        = bool
  default     = true
  description = "With a subnet_id: give the build instance a public address. Turn off where Packer reaches the subnet privately."
}

variable "toolchains" {
  type        = string
  default     = "upstream"
  description = "upstream: the publishers' checksummed releases. distro: the distribution's packages, and Node.js from the npm registry."
  validation {
    condition     = contains(["upstream", "distro"], var.toolchains)
    error_message = "The toolchains must be upstream or distro."
  }
}

variable "node_version" {
  type        = string
  default     = "20"
  description = "Node.js: a major version, which takes its newest release, or a full one. Raised to the agent's own minimum."
  validation {
    condition     = var.node_version != "" && regex_replace(var.node_version, "^[0-9]{2}(\\.[0-9]{1,3}\\.[0-9]{1,3})?$", "") == ""
    error_message = "The node_version must be a major version such as 22 or a full one such as 22.11.0."
  }
}

variable "go_version" {
  type        = string
  default     = "1.22"
  description = "Go: a minor version, which takes its newest release, or a full one. In JSON write it as a string: the number 1.20 is 1.2."
  validation {
    condition     = var.go_version != "" && regex_replace(var.go_version, "^1\\.[0-9]{1,3}(\\.[0-9]{1,3})?$", "") == ""
    error_message = "The go_version must be a version such as 1.22 or 1.22.5."
  }
}

variable "rust_version" {
  type        = string
  default     = "stable"
  description = "The Rust toolchain in upstream mode: stable, beta, nightly or a version. The distribution decides in distro mode."
  validation {
    condition     = var.rust_version != "" && regex_replace(var.rust_version, "^(stable|beta|nightly|1\\.[0-9]{1,3}(\\.[0-9]{1,3})?)$", "") == ""
    error_message = "The rust_version must be stable, beta, nightly or a version such as 1.85.0."
  }
}

variable "extra_packages" {
  type        = string
  default     = ""
  description = "More packages of the distribution, separated by spaces or commas."
  validation {
    condition     = regex_replace(var.extra_packages, "^[a-z0-9][a-z0-9+. ,-]*$", "") == ""
    error_message = "The extra_packages must be package names separated by spaces or commas."
  }
}

variable "node_mirror" {
  type        = string
  default     = "https://nodejs.org/dist"
  description = "Where Node.js releases and their SHASUMS256.txt come from (upstream mode)."
  validation {
    condition     = var.node_mirror != "" && regex_replace(var.node_mirror, "^https?://[0-9A-Za-z][0-9A-Za-z.-]*(:[0-9]{1,5})?(/[0-9A-Za-z._~/-]*)?$", "") == ""
    error_message = "The node_mirror must be an http or https address without credentials, query or fragment."
  }
}

variable "go_mirror" {
  type        = string
  default     = "https://go.dev/dl"
  description = "Where Go releases and their JSON index with checksums come from (upstream mode)."
  validation {
    condition     = var.go_mirror != "" && regex_replace(var.go_mirror, "^https?://[0-9A-Za-z][0-9A-Za-z.-]*(:[0-9]{1,5})?(/[0-9A-Za-z._~/-]*)?$", "") == ""
    error_message = "The go_mirror must be an http or https address without credentials, query or fragment."
  }
}

variable "rust_mirror" {
  type        = string
  default     = "https://static.rust-lang.org"
  description = "Where rustup-init, its checksum and the Rust toolchain come from (upstream mode)."
  validation {
    condition     = var.rust_mirror != "" && regex_replace(var.rust_mirror, "^https?://[0-9A-Za-z][0-9A-Za-z.-]*(:[0-9]{1,5})?(/[0-9A-Za-z._~/-]*)?$", "") == ""
    error_message = "The rust_mirror must be an http or https address without credentials, query or fragment."
  }
}

variable "npm_registry" {
  type        = string
  default     = ""
  description = "The npm registry; empty means the one the base image's npmrc names, or else npm's own default."
  validation {
    condition     = regex_replace(var.npm_registry, "^https?://[0-9A-Za-z][0-9A-Za-z.-]*(:[0-9]{1,5})?(/[0-9A-Za-z._~/-]*)?$", "") == ""
    error_message = "The npm_registry must be empty or an http or https address without credentials, query or fragment."
  }
}

variable "cursor_installer_url" {
  type        = string
  default     = "https://cursor.com/install"
  description = "The installer of the cursor agent (upstream mode)."
  validation {
    condition     = var.cursor_installer_url != "" && regex_replace(var.cursor_installer_url, "^https?://[0-9A-Za-z][0-9A-Za-z.-]*(:[0-9]{1,5})?(/[0-9A-Za-z._~/-]*)?$", "") == ""
    error_message = "The cursor_installer_url must be an http or https address without credentials, query or fragment."
  }
}

# The service sets these; they are recorded in the image and decide nothing but its name.

variable "ciab_build_id" {
  type        = string
  default     = ""
  description = "The id of the build, a UUID."
  validation {
    condition     = regex_replace(var.ciab_build_id, "^[0-9A-Za-z-]{1,64}$", "") == ""
    error_message = "The ciab_build_id must be empty or letters, digits and hyphens."
  }
}

variable "ciab_template_digest" {
  type        = string
  default     = ""
  description = "The digest of the template, such as sha256:…"
  validation {
    condition     = regex_replace(var.ciab_template_digest, "^[0-9A-Za-z:._-]{1,160}$", "") == ""
    error_message = "The ciab_template_digest must be empty or look like sha256:0123abcd."
  }
}
