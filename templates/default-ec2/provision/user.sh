#!/usr/bin/env bash
# The user that agents work as: ciab, reached by SSH key, with a password that matches nothing.
set -euo pipefail

if ! id ciab >/dev/null 2>&1; then
  useradd --create-home --shell /bin/bash --comment 'Coding agent' ciab
fi
# '*' lets nobody in by password; unlike '!' it does not make sshd refuse keys where PAM is off.
usermod --password '*' ciab
install -d -m 0700 -o ciab -g ciab /home/ciab/.ssh

# The only user that gets the launch key is also the only one to look after the machine.
install -d -m 0750 /etc/sudoers.d
printf 'ciab ALL=(ALL) NOPASSWD:ALL\n' >"${WORK_FOLDER}/sudoers"
visudo -cqf "${WORK_FOLDER}/sudoers"
install -m 0440 "${WORK_FOLDER}/sudoers" /etc/sudoers.d/90-ciab

# On EC2 cloud-init gives the key pair of the launch to its default user.
if [[ -d /etc/cloud/cloud.cfg.d ]]; then
  cat >/etc/cloud/cloud.cfg.d/99-ciab.cfg <<'CONFIGURATION'
# The key pair an instance is launched with opens the user ciab.
system_info:
  default_user:
    name: ciab
    gecos: Coding agent
CONFIGURATION
fi
