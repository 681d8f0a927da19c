#!/bin/sh
# What cloud-init does at the boot of an Ubuntu machine image, as far as a Packer build needs it. Runs as root inside the
# instance, before sshd. Expects INSTANCE_ADDRESS, INSTANCE_HOSTNAME and PUBLIC_KEY (may be empty). User data
# runs later, after sshd.
set -eu

# Both users can become root without a password.
ensure_user() {
    # Locked with "!", sshd would refuse the account even a key; "*" only means that no password opens it.
    if ! id "$1" >/dev/null 2>&1; then
        useradd --create-home --shell /bin/bash --password '*' "$1"
    fi
    if [ -d /etc/sudoers.d ] && [ ! -e "/etc/sudoers.d/90-$1" ]; then
        printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$1" >"/etc/sudoers.d/90-$1"
        chmod 0440 "/etc/sudoers.d/90-$1"
    fi
}

authorize() {
    home=$(getent passwd "$1" | cut -d: -f6)
    keys=$home/.ssh/authorized_keys
    if [ -f "$keys" ] && grep -qxF "$PUBLIC_KEY" "$keys"; then
        return
    fi
    group=$(id -g "$1")
    install -d -m 0700 -o "$1" -g "$group" "$home/.ssh"
    printf '%s\n' "$PUBLIC_KEY" >>"$keys"
    chown "$1:$group" "$keys"
    chmod 0600 "$keys"
}

printf '%s\n' "$INSTANCE_HOSTNAME" >/etc/hostname
{
    printf '127.0.0.1 localhost\n'
    printf '%s %s\n' "$INSTANCE_ADDRESS" "$INSTANCE_HOSTNAME"
    printf '::1 localhost ip6-localhost ip6-loopback\n'
} >/etc/hosts

# Ubuntu empties /tmp at every boot.
find /tmp -mindepth 1 -delete 2>/dev/null || true
chmod 1777 /tmp
mkdir -p /run/sshd /run/lock

users=ubuntu
if id ciab >/dev/null 2>&1 || grep -qsE '^[[:space:]]*name:[[:space:]]*ciab' /etc/cloud/cloud.cfg.d/*ciab*; then
    users='ubuntu ciab'
fi
for user in $users; do
    ensure_user "$user"
    if [ -n "$PUBLIC_KEY" ]; then
        authorize "$user"
    fi
done

# `ssh-keygen -A` also makes an RSA key, which takes longer than all the rest of the boot; every client of today takes these.
for type in ed25519 ecdsa; do
    if [ ! -s "/etc/ssh/ssh_host_${type}_key" ]; then
        ssh-keygen -q -t "$type" -N '' -C "root@$INSTANCE_HOSTNAME" -f "/etc/ssh/ssh_host_${type}_key"
    fi
done
