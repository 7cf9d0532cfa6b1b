#!/bin/sh
# Installs what tests/it/chat.rs needs, from PyPI, into a virtual environment beside what cargo builds. Quick when
# it is there already; begins anew when requirements.txt has changed or an earlier run was interrupted.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${CARGO_TARGET_DIR:-$root/target}/chat-venv
python=${PYTHON:-python3}

# The last thing that an installation writes.
if cmp -s "$here/requirements.txt" "$venv/installed.txt" && "$venv/bin/python" -c "import playwright" 2>/dev/null; then
    exit 0
fi

if ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "setup.sh: $python is not Python 3.10 or later with venv (Debian: apt install python3-venv; or set PYTHON)" >&2
    exit 1
fi
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
cp "$here/requirements.txt" "$venv/installed.txt"
