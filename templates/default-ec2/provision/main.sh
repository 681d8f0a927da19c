#!/usr/bin/env bash
# Turns a bare Ubuntu (or Debian) into an image with a coding agent. Runs once, as root, on the build instance.
#
# The order: check the values, wait for the base image to be at rest, make the user, install everything side by side,
# write down what was installed, and leave nothing behind. The first thing that fails ends the build.
set -euo pipefail

PROVISION_FOLDER="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PROVISION_FOLDER
WORK_FOLDER="$(mktemp -d /tmp/ciab-work.XXXXXXXX)"
export WORK_FOLDER
chmod 0755 "${WORK_FOLDER}"

# The path that a plain `ssh host command` gives, plus where root's own tools are.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8
umask 022

# shellcheck source=values.sh
source "${PROVISION_FOLDER}/values.sh"
# shellcheck source=parts.sh
source "${PROVISION_FOLDER}/parts.sh"

check_values
export CIAB_NODE_VERSION
CIAB_NODE_VERSION="$(node_version_for_agent)"

# curl is in Ubuntu's images; a smaller root file system has only apt's own downloader. Decided here, once: while the
# packages are being unpacked, a curl may be there before its libraries are.
if command -v curl >/dev/null; then
  export DOWNLOADER=curl
else
  export DOWNLOADER=apt
fi

# Programs that bring their own list of authorities (Node.js) trust what the base image trusts.
if [[ -r /etc/ssl/certs/ca-certificates.crt ]]; then
  export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
fi

echo "default-ec2: ${CIAB_PROVIDER} ${CIAB_AGENT_VERSION}, Node.js ${CIAB_NODE_VERSION}, toolchains ${CIAB_TOOLCHAINS}"

step() {
  bash "${PROVISION_FOLDER}/$1.sh"
}

# The agents in the npm registry need Node.js and nothing else, so they follow it and not the packages.
install_node_and_agent() {
  step node
  step agent
}

run_step base step base
run_step user step user

start_part packages step packages
if [[ "${CIAB_TOOLCHAINS}" == upstream ]]; then
  start_part rust step rust
  start_part go step go
fi
start_part node-and-agent install_node_and_agent
wait_for_parts

if [[ "${CIAB_TOOLCHAINS}" == distro ]]; then
  run_step go step go
fi
run_step first-boot step first-boot
run_step manifest step manifest
run_step tidy step tidy
run_step check-clean step check-clean

report_seconds
rm -rf "${WORK_FOLDER}" "${PROVISION_FOLDER}"
