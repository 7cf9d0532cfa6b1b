#!/bin/sh
# Installs a test's npm packages (tests/NAME/package.json with its lock) into the folder NAME-npm in cargo's target folder.
#
#   tests/npm.sh NAME...
#
# Does nothing if they are installed. Installs again if the lock has changed or an earlier run was interrupted.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}

for name in "$@"; do
    folder=$target/$name-npm
    # This file is written last, so it marks a complete installation.
    if cmp -s "$here/$name/package-lock.json" "$folder/installed.json"; then
        continue
    fi
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$here/$name/package.json" "$here/$name/package-lock.json" "$folder/"
    npm ci --prefix "$folder" --silent --no-audit --no-fund --ignore-scripts
    cp "$folder/package-lock.json" "$folder/installed.json"
done
