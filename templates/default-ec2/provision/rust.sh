#!/usr/bin/env bash
# Rust by rustup (upstream mode; in distro mode rustc and cargo are packages).
#
# The toolchain lives in /opt/rust and belongs to ciab, so that `rustup target add` needs no root, and every user has
# cargo and rustc on the path without an environment of their own. What cargo downloads goes to the user's own ~/.cargo.
set -euo pipefail
# shellcheck source=download.sh
source "${PROVISION_FOLDER}/download.sh"

case "$(uname -m)" in
  x86_64 | aarch64) triple="$(uname -m)-unknown-linux-gnu" ;;
  *) echo "there is no Rust for $(uname -m) here" >&2; exit 1 ;;
esac

mirror="${CIAB_RUST_MIRROR%/}"
installer="${WORK_FOLDER}/rustup-init"
download "${mirror}/rustup/dist/${triple}/rustup-init" "${installer}"
download "${mirror}/rustup/dist/${triple}/rustup-init.sha256" "${installer}.sha256"
read -r digest _ <"${installer}.sha256"
check_sha256 "${installer}" "${digest}"
chmod 0755 "${installer}"

export RUSTUP_HOME=/opt/rust/rustup CARGO_HOME=/opt/rust/cargo
export RUSTUP_DIST_SERVER="${mirror}" RUSTUP_UPDATE_ROOT="${mirror}/rustup"
"${installer}" -y --quiet --no-modify-path --profile minimal --component clippy --component rustfmt \
  --default-toolchain "${CIAB_RUST_VERSION}"

# rustup's programs find out by their name which tool they are, so each needs its own way in.
for program in "${CARGO_HOME}/bin/"*; do
  name="${program##*/}"
  cat >"/usr/local/bin/${name}" <<PROGRAM
#!/bin/sh
export RUSTUP_HOME="\${RUSTUP_HOME:-/opt/rust/rustup}"
exec "/opt/rust/cargo/bin/${name}" "\$@"
PROGRAM
  chmod 0755 "/usr/local/bin/${name}"
done
chown -R ciab:ciab /opt/rust
