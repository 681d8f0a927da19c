#!/usr/bin/env bash
# Asks everything that was installed for its version, as the user who will work with it, and writes the answers to
# /etc/ciab-image.json. What doesn't answer is not installed, and ends the build.
set -euo pipefail

readonly MANIFEST=/etc/ciab-image.json

# The environment of a plain `ssh ciab@host command`, and nothing of ours.
as_ciab() {
  (cd /home/ciab && sudo -u ciab env -i HOME=/home/ciab USER=ciab LOGNAME=ciab LANG=C.UTF-8 \
    PATH=/usr/local/bin:/usr/bin:/bin:/usr/games timeout 120 "$@" </dev/null)
}

# version_of NAME COMMAND...: the first thing in its answer that looks like a version
version_of() {
  local name="$1" answer version
  shift
  answer="$(as_ciab "$@" 2>&1)" || {
    printf '%s does not work for the user ciab; %s answers:\n%s\n' "${name}" "$*" "${answer}" >&2
    return 1
  }
  version="$(grep -oE '[0-9]+(\.[0-9]+)+[0-9A-Za-z.+-]*' <<<"${answer}" | head -n 1 || true)"
  [[ -n "${version}" ]] || {
    printf '%s answers with no version: %s\n' "$*" "${answer}" >&2
    return 1
  }
  echo "${version}"
}

case "${CIAB_PROVIDER}" in
  claude-code) program=claude ;;
  codex) program=codex ;;
  gemini) program=gemini ;;
  cursor) program=cursor-agent ;;
esac

agent_version="$(version_of "${CIAB_PROVIDER}" "${program}" --version)"
if [[ "${CIAB_AGENT_VERSION}" =~ ^[0-9]+\.[0-9]+\.[0-9] && "${agent_version}" != "${CIAB_AGENT_VERSION}" ]]; then
  echo "${CIAB_PROVIDER} ${CIAB_AGENT_VERSION} was asked for, and ${agent_version} is what answers" >&2
  exit 1
fi

tools='{}'
# add_tool NAME COMMAND...
add_tool() {
  local name="$1" version
  version="$(version_of "$@")"
  tools="$(jq -n --argjson tools "${tools}" --arg name "${name}" --arg version "${version}" '$tools + {($name): $version}')"
}
add_tool node node --version
add_tool npm npm --version
add_tool python python3.11 --version
add_tool rust rustc --version
add_tool cargo cargo --version
add_tool go go version
add_tool git git --version
add_tool curl curl --version
add_tool jq jq --version

# What no service named, the image's own system describes.
base_image="${CIAB_BASE_IMAGE}"
if [[ -z "${base_image}" ]]; then
  # shellcheck source=/dev/null
  base_image="$(source /etc/os-release && echo "${PRETTY_NAME:-unknown}")"
fi

jq -n \
  --arg provider "${CIAB_PROVIDER}" --arg agent_version "${agent_version}" --argjson tools "${tools}" \
  --arg toolchains "${CIAB_TOOLCHAINS}" --arg template_digest "${CIAB_TEMPLATE_DIGEST}" --arg build_id "${CIAB_BUILD_ID}" \
  --arg created_at "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --arg base_image "${base_image}" '{
    agent: {provider: $provider, version: $agent_version},
    tools: $tools,
    toolchains: $toolchains,
    template_digest: $template_digest,
    build_id: $build_id,
    created_at: $created_at,
    base_image: $base_image
  }' >"${MANIFEST}"
chmod 0644 "${MANIFEST}"
jq . "${MANIFEST}"
