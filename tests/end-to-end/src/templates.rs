//! Templates for tests: small, so that a test takes seconds.

/// A template whose one provisioner runs this script over SSH.
pub fn with_script(script: &str) -> String {
    format!(
        r#"variable "region" {{
  type = string
}}

source "amazon-ebs" "test" {{
  region        = var.region
  instance_type = "t3.medium"
  ami_name      = "end-to-end-{{{{uuid}}}}"
  ssh_username  = "ubuntu"

  source_ami_filter {{
    filters = {{
      name                = "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*"
      virtualization-type = "hvm"
    }}
    owners      = ["099720109477"]
    most_recent = true
  }}
}}

build {{
  sources = ["source.amazon-ebs.test"]

  provisioner "shell" {{
    inline = [{script:?}]
  }}
}}
"#
    )
}

/// A template that makes an image of an instance that nobody ever connects to.
pub fn without_communicator() -> String {
    let template = with_script("true").replace("ssh_username  = \"ubuntu\"", "communicator  = \"none\"");
    let provisioner = template.find("  provisioner").unwrap_or(template.len());
    format!("{}}}\n", &template[..provisioner])
}

/// The same template for a bare Packer of version 1.6, which takes the endpoint from nowhere else.
pub fn for_bare_packer(template: &str, endpoint: &str) -> String {
    let region = "  region        = var.region\n";
    let endpoint = format!(
        "{region}  custom_endpoint_ec2 = {endpoint:?}\n  skip_region_validation = true\n  skip_metadata_api_check = true\n"
    );
    template.replacen(region, &endpoint, 1)
}

/// A template that Packer refuses when it validates it.
pub fn invalid() -> String {
    with_script("true").replace("ssh_username", "no_such_attribute = 1\n  ssh_username")
}
