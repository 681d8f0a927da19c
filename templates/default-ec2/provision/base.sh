#!/usr/bin/env bash
# Waits until the base image has finished its own start, so that nothing else holds apt or rewrites its sources.
set -euo pipefail

if command -v cloud-init >/dev/null; then
  # 2 means "done, with a warning". The wait has an end, because a broken data source would hold it for ever.
  status=0
  timeout 300 cloud-init status --wait >/dev/null || status=$?
  if ((status != 0 && status != 2)); then
    echo "cloud-init on the base image did not finish (exit code ${status})" >&2
    cloud-init status --long >&2 || true
    exit 1
  fi
fi

# Ubuntu's own nightly upgrade would fight for apt's lock. Stopped for this boot only; the image keeps it.
if [[ -d /run/systemd/system ]]; then
  systemctl stop apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service \
    unattended-upgrades.service 2>/dev/null || true
fi
