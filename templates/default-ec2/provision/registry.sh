#!/usr/bin/env bash
# Reading an npm registry before there is an npm. Meant to be sourced, after download.sh.

# The registry's address, without a slash at its end. No address is written here: it is the one given, or the one this
# machine's npm is configured with, or the one that the distribution's own npm has built in.
find_registry() {
  local address='' file
  if [[ -n "${CIAB_NPM_REGISTRY}" ]]; then
    address="${CIAB_NPM_REGISTRY}"
  else
    for file in /root/.npmrc /usr/local/etc/npmrc /usr/etc/npmrc /etc/npmrc; do
      [[ -r "${file}" && -z "${address}" ]] || continue
      address="$(sed -nE 's/^[[:space:]]*registry[[:space:]]*=[[:space:]]*"?([^"[:space:]]+)"?[[:space:]]*$/\1/p' "${file}" \
        | tail -n 1)"
    done
  fi
  if [[ -z "${address}" ]]; then
    address="$(registry_of_packaged_npm)"
  fi
  [[ "${address}" =~ ${ADDRESS_PATTERN} ]] || {
    echo "no npm registry is known: set npm_registry, or a registry= line in the base image's npmrc" >&2
    return 1
  }
  echo "${address%/}"
}

# Fetches and opens the distribution's npm package without installing it or anything that it depends on.
registry_of_packaged_npm() {
  local folder="${WORK_FOLDER}/packaged-npm"
  mkdir -p "${folder}/lists/partial" "${folder}/content"
  # Lists of our own: the transaction beside us holds apt's.
  (
    cd "${folder}"
    apt-get -qq -o Dir::State::Lists="${folder}/lists" -o Dir::Cache="${folder}" -o APT::Sandbox::User=root \
      -o Acquire::Languages=none update
    apt-get -qq -o Dir::State::Lists="${folder}/lists" -o Dir::Cache="${folder}" -o APT::Sandbox::User=root \
      download npm
    dpkg-deb --extract npm_*.deb content
  ) >&2 || return 0
  # npm says what it takes when it is told nothing:  define('registry', { default: '…',
  find "${folder}/content" -path '*config*' -name 'definitions.js' -exec \
    sed -nE "/define\\('registry'/,/type:/ s/.*default: *['\"]([^'\"]+)['\"].*/\\1/p" {} + | head -n 1
}

# registry_archive REGISTRY PACKAGE VERSION FILE: downloads a package's archive and checks it. The version is full, or the
# beginning of one, which takes the newest release that begins so.
registry_archive() {
  local registry="$1" package="$2" version="$3" file="$4" address integrity
  if [[ "${version}" != *.*.* ]]; then
    download "${registry}/${package}" "${file}.versions"
    version="$(grep -oE "/${package}-${version//./\\.}(\\.[0-9]+)+\\.tgz\"" "${file}.versions" \
      | sed -E "s|^/${package}-||; s|\\.tgz\"\$||" | sort -V | tail -n 1 || true)"
    [[ -n "${version}" ]] || {
      echo "${registry} has no ${package} $3" >&2
      return 1
    }
  fi
  download "${registry}/${package}/${version}" "${file}.json"
  address="$(sed -nE 's/.*"tarball" *: *"([^"]+)".*/\1/p' "${file}.json" | head -n 1)"
  integrity="$(sed -nE 's/.*"integrity" *: *"([^"]+)".*/\1/p' "${file}.json" | head -n 1)"
  [[ "${address}" =~ ${ADDRESS_PATTERN} ]] || {
    echo "${registry} gives no address for ${package} ${version}" >&2
    return 1
  }
  download "${address}" "${file}"
  check_integrity "${file}" "${integrity}"
}
