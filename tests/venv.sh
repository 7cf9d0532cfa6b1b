#!/bin/sh
# Installs a test's Python packages (tests/NAME/requirements.txt) into the virtual environment NAME-venv in cargo's target
# folder.
#
#   tests/venv.sh NAME...
#
# Does nothing if they are installed. Installs again if requirements.txt has changed or an earlier run was interrupted.
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
    # This file is written last, so it marks a complete installation.
    if cmp -s "$here/$name/requirements.txt" "$venv/installed.txt" && "$venv/bin/python" -c '' 2>/dev/null; then
        continue
    fi
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        -r "$here/$name/requirements.txt"
    cp "$here/$name/requirements.txt" "$venv/installed.txt"
done
