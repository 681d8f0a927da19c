#!/usr/bin/env bash
# Looks at the finished image as a stranger would, and ends the build if it holds what no image may hold.
set -euo pipefail
shopt -s nullglob dotglob

failed=0
must_be_empty() {
  local what="$1" found="$2"
  if [[ -n "${found}" ]]; then
    printf 'the image still holds %s:\n%s\n' "${what}" "${found}" >&2
    failed=1
  fi
}

# Everything below the homes, /etc and /opt; a certificate's or a test's key inside an installed tool is no secret.
private_keys="$(grep -rlsE --exclude-dir=node_modules --exclude-dir=snap -e '-----BEGIN ([A-Z]+ )*PRIVATE KEY-----' \
  /root /home /etc /opt 2>/dev/null | grep -vxF /etc/ssl/private/ssl-cert-snakeoil.key || true)"
must_be_empty 'private keys' "${private_keys}"
must_be_empty 'authorized keys' "$(find /root /home -path '*/.ssh/*' -print 2>/dev/null)"
must_be_empty 'SSH host keys' "$(printf '%s\n' /etc/ssh/ssh_host_*)"
must_be_empty 'shell histories' "$(find /root /home -maxdepth 2 -name '*_history' -print)"
must_be_empty 'package lists' "$(find /var/lib/apt/lists -type f -print)"
must_be_empty 'registry credentials' "$(grep -lsE '(_authToken|_auth|_password)[[:space:]]*=' \
  /root/.npmrc /home/*/.npmrc /etc/npmrc /usr/etc/npmrc /usr/local/etc/npmrc || true)"
must_be_empty 'a machine-id' "$(cat /etc/machine-id 2>/dev/null || true)"

jq -e '.agent.version and .tools.node and .created_at' /etc/ciab-image.json >/dev/null || {
  echo '/etc/ciab-image.json is incomplete' >&2
  failed=1
}
exit "${failed}"
