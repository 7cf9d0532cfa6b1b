#!/bin/sh
# Installs Longwire from its download: the program, its manual pages and completions, api.php and the examples.
#
#   install.sh
#
#   BASE_URL   the address of the folder with SHA256SUMS and longwire-VERSION-MACHINE-linux.tar.xz; required, unless this script lies in
#              an unpacked download. On GitHub: https://github.com/OWNER/REPOSITORY/releases/latest/download
#   PREFIX     left out: /usr/local
#
# Nothing is installed if the checksum is not the one in SHA256SUMS. Everything goes below PREFIX, and
# PREFIX/share/longwire/uninstall.sh removes it.
set -eu
umask 022

prefix=${PREFIX:-/usr/local}
base=${BASE_URL:-}
folder=''

main() {
    prefix=$(absolute "$prefix")
    here=$(cd "$(dirname "$0")" && pwd)
    if [ -z "$base" ] && [ -x "$here/bin/longwire" ]; then
        put "$here"
        return
    fi
    [ -n "$base" ] || fail "set BASE_URL to the address of the downloads"
    base=${base%/}
    machine=$(machine)
    missing=''
    for name in awk find mktemp sed sha256sum tar xargs xz; do
        command -v "$name" >/dev/null 2>&1 || missing="$missing $name"
    done
    command -v curl >/dev/null 2>&1 || command -v wget >/dev/null 2>&1 || missing="$missing curl-or-wget"
    [ -z "$missing" ] || fail "these programs are missing:$missing (Debian: apt install curl xz-utils)"

    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 1' INT TERM HUP
    download "$base/SHA256SUMS" "$folder/SHA256SUMS"
    # A line is the checksum, two spaces and the name.
    awk -v machine="$machine" '$2 ~ "^longwire-[0-9][0-9A-Za-z.+~-]*-" machine "-linux[.]tar[.]xz$"' "$folder/SHA256SUMS" >"$folder/sum"
    [ "$(wc -l <"$folder/sum")" -eq 1 ] || fail "$base/SHA256SUMS does not list one longwire-VERSION-$machine-linux.tar.xz"
    name=$(awk '{ print substr($2, 1, length($2) - length(".tar.xz")) }' "$folder/sum")
    download "$base/$name.tar.xz" "$folder/$name.tar.xz"
    (cd "$folder" && sha256sum --check sum >/dev/null 2>&1) ||
        fail "$name.tar.xz has another checksum than SHA256SUMS says; nothing was installed"
    tar --extract --xz --no-same-owner --directory "$folder" --file "$folder/$name.tar.xz"
    put "$folder/$name"
}

absolute() {
    case $1 in
        /*) echo "${1%/}" ;;
        *) echo "$(pwd)/${1%/}" ;;
    esac
}

machine() {
    system=$(uname -s)
    [ "$system" = Linux ] || fail "Longwire runs on Linux, and this is $system"
    case $(uname -m) in
        x86_64 | amd64) echo x86_64 ;;
        aarch64 | arm64) echo aarch64 ;;
        *) fail "there is no download for this kind of machine ($(uname -m)), only for x86_64 and aarch64; docs/install.md says how to build it" ;;
    esac
}

download() {
    if command -v curl >/dev/null 2>&1; then
        curl --fail --silent --show-error --location --connect-timeout 20 --retry 2 --output "$2" "$1"
    else
        wget --quiet --timeout=20 --tries=3 --output-document="$2" "$1"
    fi || fail "cannot download $1"
}

# Copies an unpacked download below the prefix.
put() {
    mkdir -p "$prefix/bin" 2>/dev/null && [ -w "$prefix/bin" ] ||
        fail "$prefix cannot be written: run this as root, or set PREFIX to a folder of yours"
    version_of "$1/bin/longwire"
    list=$prefix/share/longwire/installed
    # Files of an earlier version that this one no longer has.
    [ ! -e "$list" ] || (cd "$prefix" && tr '\n' '\0' <"$list" | xargs -0 rm -f)
    (cd "$1" && find bin share ! -type d | sort) | while IFS= read -r file; do
        mkdir -p "$prefix/$(dirname "$file")"
        # A running program is not written over, but replaced.
        cp -P "$1/$file" "$prefix/$file.new"
        mv -f "$prefix/$file.new" "$prefix/$file"
    done
    for file in longwire.toml longwire.service; do
        sed "s|/usr/bin/longwire|$prefix/bin/longwire|; s|/usr/share/|$prefix/share/|" "$1/share/longwire/$file" \
            >"$prefix/share/longwire/$file"
    done
    (cd "$1" && find bin share ! -type d | sort) >"$list"
    echo share/longwire/uninstall.sh >>"$list"
    echo share/longwire/installed >>"$list"
    uninstaller >"$prefix/share/longwire/uninstall.sh"
    chmod 755 "$prefix/share/longwire/uninstall.sh"
    told
}

version_of() {
    said=$("$1" --version 2>&1) || fail "the program does not run on this machine: $said"
}

uninstaller() {
    cat <<END
#!/bin/sh
# Removes what install.sh has put below $prefix, and the folders that are empty then.
set -eu
cd '$prefix'
tr '\\n' '\\0' <share/longwire/installed | xargs -0 sh -c '
    for file; do rm -f "\$file"; done
    for file; do
        folder=\$(dirname "\$file")
        while [ "\$folder" != . ] && rmdir "\$folder" 2>/dev/null; do folder=\$(dirname "\$folder"); done
    done
    exit 0' sh
END
}

told() {
    cat <<END
$said is in $prefix/bin.

Try it:        longwire dev $prefix/share/longwire/examples/chat
As a service:  docs/install.md, or in short, as root:
  useradd --system --user-group --home-dir /var/lib/longwire --shell /usr/sbin/nologin --groups www-data longwire
  install -D -m 644 $prefix/share/longwire/longwire.toml /etc/longwire/longwire.toml
  install -m 644 $prefix/share/longwire/longwire.service /etc/systemd/system/
  systemctl daemon-reload && systemctl enable --now longwire
Remove it:     $prefix/share/longwire/uninstall.sh
END
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

main "$@"
