#!/usr/bin/env bash
# The coding agent itself, for every user of the image.
set -euo pipefail
# shellcheck source=download.sh
source "${PROVISION_FOLDER}/download.sh"

# install_from_npm PACKAGE
install_from_npm() {
  local package="$1"
  local -a options=(--global --omit=dev --ignore-scripts --no-audit --no-fund --no-update-notifier --no-progress
    --loglevel=warn --cache "${WORK_FOLDER}/npm-cache")
  [[ -z "${CIAB_NPM_REGISTRY}" ]] || options+=(--registry "${CIAB_NPM_REGISTRY}")
  # Scripts of dependencies stay off: they are other people's code run as root, and would compile, against headers from
  # the network, what exists ready-made. npm itself leaves out the binaries of other platforms.
  npm install "${options[@]}" -- "${package}@${CIAB_AGENT_VERSION}"
}

# The installer is its publisher's script; it gets a folder and a user of no importance, never root.
install_cursor() {
  download "${CIAB_CURSOR_INSTALLER_URL}" "${WORK_FOLDER}/cursor-installer"
  chmod 0755 "${WORK_FOLDER}/cursor-installer"
  install -d -o ciab -g ciab /opt/cursor
  sudo -u ciab env -i HOME=/opt/cursor PATH="${PATH}" LC_ALL=C.UTF-8 \
    timeout 600 bash "${WORK_FOLDER}/cursor-installer" </dev/null
  chown -R root:root /opt/cursor
  local program found=''
  for program in cursor-agent agent; do
    if [[ -x "/opt/cursor/.local/bin/${program}" ]]; then
      ln -sfn "/opt/cursor/.local/bin/${program}" "/usr/local/bin/${program}"
      found="${program}"
    fi
  done
  [[ -n "${found}" ]] || {
    echo "the installer at ${CIAB_CURSOR_INSTALLER_URL} left no cursor-agent in ~/.local/bin" >&2
    exit 1
  }
}

case "${CIAB_PROVIDER}" in
  claude-code)
    install_from_npm @anthropic-ai/claude-code
    # Its own script, and only its own, puts the platform's native binary in its place.
    folder="$(npm root --global)/@anthropic-ai/claude-code"
    if [[ -f "${folder}/install.cjs" ]]; then
      (cd "${folder}" && node install.cjs)
    fi
    ;;
  codex) install_from_npm @openai/codex ;;
  gemini) install_from_npm @google/gemini-cli ;;
  cursor) install_cursor ;;
esac
