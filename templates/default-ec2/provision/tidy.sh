#!/usr/bin/env bash
# Takes out of the image what belongs to this build or this machine alone: keys, credentials, histories, caches, logs.
# The connection that Packer holds stays usable: sshd has what it needs in memory until the machine stops.
set -euo pipefail
shopt -s nullglob dotglob

homes=(/root /home/*)

rm -f /etc/dpkg/dpkg.cfg.d/ciab-build
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old

# Keys, and whatever a tool would take for a login.
for home in "${homes[@]}"; do
  rm -rf "${home}"/.ssh/*
  rm -rf "${home}"/{.aws,.gnupg,.docker,.netrc,.git-credentials,.config/gcloud,.config/gh,.cargo/credentials,.cargo/credentials.toml}
done
rm -rf /etc/apt/auth.conf /etc/apt/auth.conf.d/*
for file in /root/.npmrc /home/*/.npmrc /etc/npmrc /usr/etc/npmrc /usr/local/etc/npmrc; do
  [[ -f "${file}" ]] || continue
  sed -i -E '/(_authToken|_auth|_password|:username|:email|^[[:space:]]*(username|email))[[:space:]]*=/d' "${file}"
done

# Histories, caches, and what the agents wrote when they were asked for their version.
for home in "${homes[@]}"; do
  rm -rf "${home}"/.{bash_history,zsh_history,python_history,node_repl_history,lesshst,viminfo,wget-hsts,sudo_as_admin_successful}
  rm -rf "${home}"/.{npm,cache,cargo,claude,claude.json,claude.json.backup,codex,gemini,cursor,local,config/go}
done
rm -rf /opt/cursor/.{cache,cursor,config}

# What makes one machine differ from another. An empty machine-id is filled in at the next boot.
if [[ -e /etc/machine-id ]]; then
  : >/etc/machine-id
fi
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -rf /var/lib/fwupd/pki/* /var/lib/dhcp/* /var/lib/NetworkManager/*.lease
if command -v cloud-init >/dev/null; then
  # User data may hold secrets, and the next instance has to count as new.
  cloud-init clean --logs
fi

# Logs, kept as empty files where programs have them open.
rm -rf /var/log/journal/* /var/log/apt/* /var/log/unattended-upgrades/*
find /var/log -type f \( -name '*.gz' -o -name '*.[0-9]' \) -delete
find /var/log -type f -exec truncate -s 0 {} +

find /tmp /var/tmp -mindepth 1 -maxdepth 1 ! -path "${WORK_FOLDER}" ! -path "${PROVISION_FOLDER}" \
  ! -name 'script_*' ! -name 'systemd-private-*' ! -name 'snap-private-tmp' -exec rm -rf {} +

# Last of all: a new connection would need these, Packer's own does not.
rm -f /etc/ssh/ssh_host_*
