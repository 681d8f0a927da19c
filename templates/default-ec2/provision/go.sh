#!/usr/bin/env bash
# Go: the publisher's release, or the distribution's made reachable.
set -euo pipefail
# shellcheck source=download.sh
source "${PROVISION_FOLDER}/download.sh"

link_from() {
  ln -sfn "$1/go" /usr/local/bin/go
  ln -sfn "$1/gofmt" /usr/local/bin/gofmt
}

if [[ "${CIAB_TOOLCHAINS}" == distro ]]; then
  # Versioned packages put nothing on the path.
  folder="$(find /usr/lib -maxdepth 1 -name 'go-1.*' | sort -V | tail -n 1)"
  [[ -x "${folder}/bin/go" ]] || {
    echo "the distribution's Go is not where its package puts it (/usr/lib/go-1.*)" >&2
    exit 1
  }
  link_from "${folder}/bin"
  installed="$(/usr/local/bin/go version)"
  [[ "${installed}" == *" go${CIAB_GO_VERSION}"[\ .]* ]] \
    || echo "note: the distribution has no Go ${CIAB_GO_VERSION}; it has ${installed}"
  exit 0
fi

case "$(uname -m)" in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "there is no Go for $(uname -m) here" >&2; exit 1 ;;
esac

mirror="${CIAB_GO_MIRROR%/}"
# Read without jq, which is still being installed beside us: one object a line.
download "${mirror}/?mode=json&include=all" "${WORK_FOLDER}/go.json"
tr -d ' \n\t' <"${WORK_FOLDER}/go.json" | tr '{' '\n' >"${WORK_FOLDER}/go.lines"

version_pattern="${CIAB_GO_VERSION//./\\.}"
[[ "${CIAB_GO_VERSION}" == 1.*.* ]] || version_pattern="${version_pattern}(\\.[0-9]+)?"
archive="$(grep -oE "\"filename\":\"go${version_pattern}\\.linux-${architecture}\\.tar\\.gz\"" "${WORK_FOLDER}/go.lines" \
  | cut -d '"' -f 4 | sort -V | tail -n 1 || true)"
[[ -n "${archive}" ]] || {
  echo "${mirror} lists no Go ${CIAB_GO_VERSION} for linux-${architecture}" >&2
  exit 1
}
digest="$(grep -F "\"filename\":\"${archive}\"" "${WORK_FOLDER}/go.lines" \
  | sed -nE 's/.*"sha256":"([0-9a-f]{64})".*/\1/p' | head -n 1)"

download "${mirror}/${archive}" "${WORK_FOLDER}/${archive}"
check_sha256 "${WORK_FOLDER}/${archive}" "${digest}"
rm -rf /usr/local/go
tar -xzf "${WORK_FOLDER}/${archive}" -C /usr/local --no-same-owner
link_from /usr/local/go/bin
/usr/local/bin/go version
