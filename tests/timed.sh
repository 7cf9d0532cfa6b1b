#!/usr/bin/env bash
# Runs a step of `make test` and notes how long it took.
#
#   tests/timed.sh NAME COMMAND...   runs the command; its seconds go to target/times.txt
#   tests/timed.sh                   prints what has been noted, and forgets it
set -euo pipefail

times=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/times.txt

if (($# > 0)); then
    name=$1
    shift
    started=$SECONDS
    status=0
    "$@" || status=$?
    mkdir -p "$(dirname "$times")"
    printf '%s\t%s\n' $((SECONDS - started)) "$name" >>"$times"
    exit "$status"
fi

[[ -e $times ]] || exit 0
awk -F'\t' '{ printf "%5d s  %s\n", $1, $2 }' "$times"
rm "$times"
