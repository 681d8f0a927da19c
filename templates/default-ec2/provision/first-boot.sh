#!/usr/bin/env bash
# Prepares what each instance of the image makes for itself: its SSH host keys.
#
# On EC2 cloud-init makes them. The unit is for an image without cloud-init; it steps back where keys exist already.
# A root file system without systemd gets its keys from whoever boots it (`ssh-keygen -A`).
set -euo pipefail

[[ -x /lib/systemd/systemd || -x /usr/lib/systemd/systemd ]] || exit 0

cat >/etc/systemd/system/ciab-host-keys.service <<'UNIT'
[Unit]
Description=SSH host keys of this instance's own
After=cloud-init.service
Before=ssh.service ssh.socket
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
install -d /etc/systemd/system/multi-user.target.wants
ln -sfn ../ciab-host-keys.service /etc/systemd/system/multi-user.target.wants/ciab-host-keys.service
