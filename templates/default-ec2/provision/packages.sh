#!/usr/bin/env bash
# Everything that comes from the distribution, in one transaction.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1

# An image that is thrown away if the build fails needs no fsync for each file. tidy.sh takes this out again.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/ciab-build

# Authorities that were put into the base image by hand would vanish when the package ca-certificates writes its list.
if [[ -s /etc/ssl/certs/ca-certificates.crt && ! -e /usr/sbin/update-ca-certificates ]]; then
  install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates/base-image.crt
fi

apt_get() {
  apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=4 -o Acquire::Languages=none "$@"
}

# apt-get update has no waiting for its lock on every release, hence the few tries.
for try in 1 2 3 4 5; do
  if apt_get -o APT::Update::Error-Mode=any update; then
    break
  fi
  if ((try == 5)); then
    echo "apt-get update failed ${try} times" >&2
    exit 1
  fi
  sleep 3
done

# The package of the Go asked for, or else the newest that the distribution has.
go_package() {
  local wanted="${CIAB_GO_VERSION}" available
  [[ "${wanted}" =~ ^(1\.[0-9]+) ]] && wanted="${BASH_REMATCH[1]}"
  available="$(apt-cache pkgnames golang-1. | grep -E '^golang-1\.[0-9]+-go$' | sort -V || true)"
  if grep -qxF "golang-${wanted}-go" <<<"${available}"; then
    echo "golang-${wanted}-go"
  elif [[ -n "${available}" ]]; then
    tail -n 1 <<<"${available}"
  else
    echo golang-go
  fi
}

packages=(git curl jq ca-certificates xz-utils procps openssh-client python3 python3.11 python3.11-venv)
if [[ "${CIAB_TOOLCHAINS}" == distro ]]; then
  packages+=(rustc cargo "$(go_package)")
else
  # rustc links with these; in distro mode they come with rustc.
  packages+=(gcc libc6-dev)
fi
read -r -a extra_packages <<<"${CIAB_EXTRA_PACKAGES//,/ }"

echo "packages: ${packages[*]} ${extra_packages[*]}"
apt_get install --no-install-recommends --yes -- "${packages[@]}" "${extra_packages[@]}"
