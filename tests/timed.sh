#!/usr/bin/env bash
# Runs a step of `make test` and notes how long it took.
#
#   tests/timed.sh NAME COMMAND...   runs the command; with LONGWIRE_TIMES set, its seconds go to target/times.txt
#   tests/timed.sh                   prints what has been noted, and forgets it
set -euo pipefail

times=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/times.txt

if (($# > 0)); then
    name=$1
    shift
    started=$SECONDS
    status=0
    # cargo would obey the job server of make, which has fewer jobs than there are cores.
    [[ ${1##*/} == *make ]] || unset MAKEFLAGS MFLAGS
    "$@" || status=$?
    mkdir -p "$(dirname "$times")"
    [[ -z ${LONGWIRE_TIMES-} ]] || printf '%s\t%s\n' $((SECONDS - started)) "$name" >>"$times"
    ((status == 0)) || echo "$name failed" >&2
    exit "$status"
fi

[[ -e $times ]] || exit 0
awk -F'\t' '{ printf "%5d s  %s\n", $1, $2 }' "$times"
rm "$times"
