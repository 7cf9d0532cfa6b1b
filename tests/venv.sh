#!/bin/sh
# Installs a test's Python packages (tests/NAME/requirements.txt) into the virtual environment NAME-venv in cargo's target
# folder.
#
#   tests/venv.sh NAME...
#
# Packages in tests/NAME/no-deps.txt are installed without what they depend on.
#
# Does nothing if they are installed. Installs again if a list has changed or an earlier run was interrupted.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
python=${PYTHON:-python3}

if ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "venv.sh: $python is not Python 3.10 or later with venv (Debian: apt install python3-venv; or set PYTHON)" >&2
    exit 1
fi
for name in "$@"; do
    venv=$target/$name-venv
    list=$here/$name/requirements.txt
    no_deps=$here/$name/no-deps.txt
    [ -e "$no_deps" ] || no_deps=/dev/null
    # This file is written last, so it marks a complete installation.
    if cat "$list" "$no_deps" | cmp -s - "$venv/installed.txt" && "$venv/bin/python" -c '' 2>/dev/null; then
        continue
    fi
    "$python" -m venv --clear "$venv"
    pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "$@"; }
    pip -r "$list"
    [ "$no_deps" = /dev/null ] || pip --no-deps -r "$no_deps"
    cat "$list" "$no_deps" >"$venv/installed.txt"
done
