#!/bin/sh
# Installs what a test needs from npm: tests/NAME/package.json with its lock, into the folder NAME-npm beside what cargo builds.
#
#   tests/npm.sh NAME...
#
# Quick when it is there already; begins anew when the lock has changed or an earlier run was interrupted.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}

for name in "$@"; do
    folder=$target/$name-npm
    # The last thing that an installation writes.
    if cmp -s "$here/$name/package-lock.json" "$folder/installed.json"; then
        continue
    fi
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$here/$name/package.json" "$here/$name/package-lock.json" "$folder/"
    npm ci --prefix "$folder" --silent --no-audit --no-fund --ignore-scripts
    cp "$folder/package-lock.json" "$folder/installed.json"
done
