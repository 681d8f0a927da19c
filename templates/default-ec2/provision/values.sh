#!/usr/bin/env bash
# The values a build was given, checked again where they meet a shell. Meant to be sourced.
#
# They arrive as environment variables and are only ever used quoted, as data; a value that does not match its pattern
# ends the build before anything is changed.

declare -rx ADDRESS_PATTERN='^https?://[0-9A-Za-z][0-9A-Za-z.-]*(:[0-9]{1,5})?(/[0-9A-Za-z._~/-]*)?$'

refuse() {
  echo "default-ec2: $*" >&2
  exit 2
}

# check_value NAME DEFAULT PATTERN MEANING: an absent or empty value becomes the default.
check_value() {
  local name="$1" default="$2" pattern="$3" meaning="$4"
  local value="${!name:-${default}}"
  # A pattern's $ also matches before a last newline in some tools; here any newline is refused outright.
  if [[ "${value}" == *$'\n'* || ! "${value}" =~ ${pattern} ]]; then
    # What stands before an @ in an address is a credential, and this goes to a log.
    [[ "${value}" != *@* ]] || value='(an address with credentials)'
    refuse "$(printf '%s is %q; it must be %s' "${name}" "${value}" "${meaning}")"
  fi
  printf -v "${name}" '%s' "${value}"
  export "${name?}"
}

check_values() {
  [[ "$(id -u)" == 0 ]] || refuse "main.sh has to run as root"

  check_value CIAB_PROVIDER claude-code '^(claude-code|codex|gemini|cursor)$' 'one of claude-code, codex, gemini, cursor'
  check_value CIAB_AGENT_VERSION latest '^[0-9A-Za-z][0-9A-Za-z.-]{0,63}$' 'a version such as 2.1.0 or a tag such as latest'
  check_value CIAB_TOOLCHAINS upstream '^(upstream|distro)$' 'upstream or distro'
  check_value CIAB_NODE_VERSION 20 '^[0-9]{2}(\.[0-9]{1,3}\.[0-9]{1,3})?$' 'a version such as 22 or 22.11.0'
  check_value CIAB_GO_VERSION 1.22 '^1\.[0-9]{1,3}(\.[0-9]{1,3})?$' 'a version such as 1.22 or 1.22.5'
  check_value CIAB_RUST_VERSION stable '^(stable|beta|nightly|1\.[0-9]{1,3}(\.[0-9]{1,3})?)$' 'stable, beta, nightly or a version'
  check_value CIAB_EXTRA_PACKAGES '' '^([a-z0-9][a-z0-9+. ,-]*)?$' 'package names separated by spaces or commas'
  check_value CIAB_NODE_MIRROR https://nodejs.org/dist "${ADDRESS_PATTERN}" 'an http or https address'
  check_value CIAB_GO_MIRROR https://go.dev/dl "${ADDRESS_PATTERN}" 'an http or https address'
  check_value CIAB_RUST_MIRROR https://static.rust-lang.org "${ADDRESS_PATTERN}" 'an http or https address'
  check_value CIAB_NPM_REGISTRY '' "(${ADDRESS_PATTERN})|^\$" 'empty or an http or https address'
  check_value CIAB_CURSOR_INSTALLER_URL https://cursor.com/install "${ADDRESS_PATTERN}" 'an http or https address'
  check_value CIAB_BUILD_ID '' '^[0-9A-Za-z-]{0,64}$' 'empty or letters, digits and hyphens'
  check_value CIAB_TEMPLATE_DIGEST '' '^[0-9A-Za-z:._-]{0,160}$' 'empty or a digest such as sha256:0123abcd'

  # Packer puts a placeholder here where the builder knows no source image.
  [[ "${CIAB_BASE_IMAGE:-}" =~ ^ami-[0-9a-f]{8,17}$ ]] || CIAB_BASE_IMAGE=''
  export CIAB_BASE_IMAGE

  local name
  for name in ${CIAB_EXTRA_PACKAGES//,/ }; do
    # apt reads name- as "remove name".
    [[ "${name}" =~ ^[a-z0-9][a-z0-9+.-]+$ && "${name}" != *- ]] \
      || refuse "$(printf 'extra_packages names %q, which is no package name' "${name}")"
  done

  if [[ "${CIAB_PROVIDER}" == cursor ]]; then
    [[ "${CIAB_TOOLCHAINS}" == upstream ]] \
      || refuse "cursor comes only from its publisher's installer: use toolchains = upstream, or another provider"
    [[ "${CIAB_AGENT_VERSION}" == latest ]] \
      || refuse "cursor's installer knows no versions: leave agent_version at latest"
  fi
}

# The Node.js to install: what was asked for, or the agent's own minimum if that is higher.
node_version_for_agent() {
  local minimum
  case "${CIAB_PROVIDER}" in
    claude-code) minimum=22 ;;
    *) minimum=20 ;;
  esac
  if ((${CIAB_NODE_VERSION%%.*} < minimum)); then
    echo "default-ec2: ${CIAB_PROVIDER} needs Node.js ${minimum}; taking that instead of ${CIAB_NODE_VERSION}" >&2
    echo "${minimum}"
  else
    echo "${CIAB_NODE_VERSION}"
  fi
}
