#!/usr/bin/env bash
# Downloads and checksums. Meant to be sourced.
#
# A checksum from the same place as the file proves that it arrived whole, not who made it: for that there is TLS.

# download ADDRESS FILE
download() {
  local address="$1" file="$2"
  if [[ "${DOWNLOADER}" == curl ]]; then
    curl --fail --silent --show-error --location --proto '=http,https' --proto-redir '=http,https' \
      --connect-timeout 15 --max-time 900 --retry 4 --retry-delay 1 --output "${file}" -- "${address}" || {
      echo "can't download ${address}" >&2
      return 1
    }
  else
    # apt's sandbox user can't write to our folder.
    /usr/lib/apt/apt-helper -qq -o APT::Sandbox::User=root -o Acquire::Retries=4 \
      download-file "${address}" "${file}" || {
      echo "can't download ${address}" >&2
      return 1
    }
  fi
}

# check_sha256 FILE HEXADECIMAL_DIGEST
check_sha256() {
  local file="$1" expected="$2" actual
  [[ "${expected}" =~ ^[0-9a-f]{64}$ ]] || {
    echo "there is no SHA-256 for ${file##*/} (found: $(printf '%q' "${expected}"))" >&2
    return 1
  }
  actual="$(sha256sum "${file}")"
  actual="${actual%% *}"
  [[ "${actual}" == "${expected}" ]] || {
    echo "${file##*/} is not what its publisher lists: SHA-256 ${actual}, expected ${expected}" >&2
    return 1
  }
}

# check_integrity FILE sha512-BASE64, npm's own notation
check_integrity() {
  local file="$1" expected="$2" actual
  [[ "${expected}" =~ ^sha512-[0-9A-Za-z+/]{86}==$ ]] || {
    echo "the registry lists no SHA-512 for ${file##*/} (found: $(printf '%q' "${expected}"))" >&2
    return 1
  }
  actual="$(sha512sum "${file}")"
  expected="$(base64 -d <<<"${expected#sha512-}" | od -An -v -tx1 | tr -d ' \n')"
  [[ "${actual%% *}" == "${expected}" ]] || {
    echo "${file##*/} is not what the registry lists: SHA-512 ${actual%% *}, expected ${expected}" >&2
    return 1
  }
}
