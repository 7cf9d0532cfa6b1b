#!/usr/bin/env bash
# Makes a minimal Debian as debian-SUITE-KIND in cargo's target folder, and prints its path. Does nothing if the
# folder is there: remove it to get today's packages.
#
#   tests/packages/base.sh SUITE KIND   KIND is `bare`, or `systemd`: with systemd as its init, and with php-fpm's packages downloaded, so
#                                       that apt can install them offline
#
# Run it as root, in a mount namespace that ends with it: mmdebstrap mounts things in the folder that it fills.
set -euo pipefail

suite=${1:?give a release of Debian, see the head of this file} kind=${2:?give a kind, see the head of this file}
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}
mkdir -p "$target"
target=$(realpath "$target")
folder=$target/debian-$suite-$kind
echo "$folder"
[[ ! -e $folder ]] || exit 0
command -v mmdebstrap >/dev/null || {
    echo "base.sh: mmdebstrap is not installed: run tests/install-deps.sh test" >&2
    exit 1
}

options=(--quiet --mode=root --variant=minbase --format=directory --dpkgopt=force-unsafe-io --aptopt='APT::Install-Recommends "false"')
if [[ $kind == systemd ]]; then
    # The lists of packages stay, or apt would not find php-fpm later.
    # shellcheck disable=SC2016 # mmdebstrap gives the folder as $1.
    options+=(--include=systemd-sysv --skip=cleanup/apt,cleanup/reproducible
        --customize-hook='chroot "$1" apt-get install --yes --quiet --quiet --download-only php-fpm >&2')
fi
# An earlier run may have been interrupted.
rm -rf --one-file-system "$folder.new"
timeout --kill-after=5 300 mmdebstrap "${options[@]}" "$suite" "$folder.new" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" </dev/null >&2
mv "$folder.new" "$folder"
