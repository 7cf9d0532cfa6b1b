#!/usr/bin/env bash
# Installs the download with packaging/install.sh, over HTTP from a loopback address, and sees it refuse what it should refuse.
#
#   tests/packages/download.sh FOLDER    FOLDER has the download and SHA256SUMS, as packaging/build.sh makes them
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
install=$here/../../packaging/install.sh
work=''
server=''

main() {
    local from
    from=$(realpath -e "${1:?give the folder, see the head of this file}")
    work=$(mktemp -d "${TMPDIR:-/tmp}/longwire-download.XXXXXX")
    trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
    mkdir "$work/good" "$work/none"
    : >"$work/port"
    cp "$from"/longwire-*-linux.tar.xz "$from/SHA256SUMS" "$work/good/"
    serve
    installs_and_goes
    installs_from_an_unpacked_download
    refuses
    echo "   the download is installed, replaced and removed; wrong checksums, machines and tools are refused"
}

serve() {
    local port=''
    setpriv --pdeathsig KILL python3 -u -m http.server --bind 127.0.0.1 --directory "$work" 0 >"$work/port" 2>"$work/requests" &
    server=$!
    for _ in {1..50}; do
        port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$work/port")
        [[ -z $port ]] || break
        sleep 0.1
    done
    [[ -n $port ]] || fail "the HTTP server did not start"
    url=http://127.0.0.1:$port
}

fail() {
    echo "download.sh: $1" >&2
    exit 1
}

installs_and_goes() {
    local prefix=$work/usr said
    said=$(BASE_URL=$url/good PREFIX=$prefix "$install") || fail "$said"
    [[ $said == "$("$prefix/bin/longwire" --version)"* ]] || fail "it says: $said"
    grep -q "^ExecStart=$prefix/bin/longwire serve" "$prefix/share/longwire/longwire.service" || fail "the unit names another program"
    "$prefix/bin/longwire" check --config "$prefix/share/longwire/longwire.toml" >"$work/check" 2>&1 || true
    ! grep 'script' "$work/check" | grep 'not there' || fail "the configuration names a script that is not there"
    # The next version lacks a file of this one.
    echo share/longwire/gone >>"$prefix/share/longwire/installed"
    touch "$prefix/share/longwire/gone"
    "$prefix/bin/longwire" --version >/dev/null
    BASE_URL=$url/good/ PREFIX=$prefix "$install" >/dev/null || fail "it does not install a second time"
    [[ ! -e $prefix/share/longwire/gone ]] || fail "a file of the version before is left"
    touch "$prefix/share/mine"
    "$prefix/share/longwire/uninstall.sh" || fail "it cannot be removed"
    [[ $(cd "$prefix" && find . -mindepth 1 | sort | xargs) == './share ./share/mine' ]] || fail "left: $(find "$prefix")"
}

installs_from_an_unpacked_download() {
    local said
    mkdir "$work/unpacked"
    tar --extract --xz --directory "$work/unpacked" --file "$work"/good/*.tar.xz
    PREFIX=$work/local "$work"/unpacked/*/install.sh >/dev/null || fail "it does not install what is unpacked"
    [[ -x $work/local/bin/longwire && -L $work/local/share/longwire/api.php && -r $work/local/share/longwire/api.php ]] || fail "files are missing"
    # The next version does not fit on the disk: this one stays.
    find "$work/local" ! -type d | sort >"$work/before"
    ! said=$(ulimit -f 1024 && PREFIX=$work/local "$work"/unpacked/*/install.sh 2>&1) || fail "it installs what does not fit"
    [[ $said == *'is as before'* ]] || fail "without room it says: $said"
    find "$work/local" ! -type d | sort | diff "$work/before" - || fail "without room it leaves or takes files"
    "$work/local/bin/longwire" --version >/dev/null || fail "without room the program is gone"
}

# Expects a refusal with these words, and that nothing was installed.
refused() {
    local words=$1 said
    shift
    ! said=$(env PREFIX="$work/none/usr" "$@" 2>&1) || fail "accepted instead of: $words"
    [[ $said == *"$words"* ]] || fail "it says \"$said\" instead of: $words"
    [[ -z $(find "$work/none" -mindepth 1) ]] || fail "it installs something: $words"
}

refuses() {
    local name
    cp -r "$work/good" "$work/cut"
    for name in "$work"/cut/*.tar.xz; do truncate --size=-1 "$name"; done
    refused 'another checksum' BASE_URL="$url/cut" "$install"
    mkdir "$work/unlisted"
    : >"$work/unlisted/SHA256SUMS"
    refused 'does not list' BASE_URL="$url/unlisted" "$install"
    refused 'cannot download' BASE_URL="$url/nothing" "$install"
    refused 'set BASE_URL' "$install"
    refused 'special character' BASE_URL="$url/good" PREFIX="$work/none/a b" "$install"

    # Programs that say something else, or are missing.
    mkdir "$work/riscv" "$work/few"
    printf '#!/bin/sh\ncase $1 in -m) echo riscv64 ;; *) echo Linux ;; esac\n' >"$work/riscv/uname"
    chmod +x "$work/riscv/uname"
    refused 'riscv64' BASE_URL="$url/good" PATH="$work/riscv:$PATH" "$install"
    for name in sh dirname uname awk find grep mktemp sed sha256sum tar xargs; do
        ln -s "$(command -v "$name")" "$work/few/$name"
    done
    refused 'missing: xz curl-or-wget' BASE_URL="$url/good" PATH="$work/few" "$install"
}

main "$@"
