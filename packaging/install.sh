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
copying=''

main() {
    prefix=$(absolute "$prefix")
    case $prefix in
        *[[:space:][:cntrl:]\'\"\`\\\|\&\;\#%$]*)
            fail "PREFIX has a space or a special character, which the service's file cannot have in a path: $prefix" ;;
    esac
    trap clean EXIT
    trap 'exit 1' INT TERM HUP
    here=$(cd "$(dirname "$0")" && pwd)
    if [ -z "$base" ] && [ -x "$here/bin/longwire" ]; then
        put "$here"
        return
    fi
    [ -n "$base" ] || fail "set BASE_URL to the address of the downloads"
    base=${base%/}
    machine=$(machine)
    missing=''
    for name in awk find grep mktemp sed sha256sum tar xargs xz; do
        command -v "$name" >/dev/null 2>&1 || missing="$missing $name"
    done
    command -v curl >/dev/null 2>&1 || command -v wget >/dev/null 2>&1 || missing="$missing curl-or-wget"
    [ -z "$missing" ] || fail "these programs are missing:$missing (Debian: apt install curl xz-utils)"

    folder=$(mktemp -d)
    download "$base/SHA256SUMS" "$folder/SHA256SUMS"
    # A line is the checksum, two spaces and the name.
    awk -v machine="$machine" '$2 ~ "^longwire-[0-9][0-9A-Za-z.+~-]*-" machine "-linux[.]tar[.]xz$"' "$folder/SHA256SUMS" >"$folder/sum"
    [ "$(wc -l <"$folder/sum")" -eq 1 ] || fail "$base/SHA256SUMS does not list one longwire-VERSION-$machine-linux.tar.xz"
    name=$(awk '{ print substr($2, 1, length($2) - length(".tar.xz")) }' "$folder/sum")
    download "$base/$name.tar.xz" "$folder/$name.tar.xz"
    (cd "$folder" && sha256sum -c sum >/dev/null 2>&1) ||
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
        # Short options, also above: those of BusyBox (Alpine) have no other names.
        wget -q -T 20 -O "$2" "$1"
    fi || fail "cannot download $1"
}

# Copies an unpacked download below the prefix. The copies lie beside the files of an earlier version until all of them are there: a full
# disk leaves that version as it was.
put() {
    mkdir -p "$prefix/bin" "$prefix/share/longwire" 2>/dev/null && [ -w "$prefix/bin" ] && [ -w "$prefix/share/longwire" ] ||
        fail "$prefix cannot be written: run this as root, or set PREFIX to a folder of yours"
    list=$prefix/share/longwire/installed
    copying=yes
    {
        (cd "$1" && find bin share ! -type d | sort)
        echo share/longwire/uninstall.sh
    } >"$list.new"
    while IFS= read -r file; do
        [ ! -d "$prefix/$file" ] || [ -L "$prefix/$file" ] || fail "$prefix/$file is a folder"
        mkdir -p "$prefix/$(dirname "$file")"
        rm -f "$prefix/$file.new"
        case $file in
            share/longwire/uninstall.sh) uninstaller >"$prefix/$file.new" ;;
            share/longwire/longwire.toml | share/longwire/longwire.service)
                sed "s|/usr/bin/longwire|$prefix/bin/longwire|; s|/usr/share/|$prefix/share/|" "$1/$file" >"$prefix/$file.new"
                ;;
            *) cp -P "$1/$file" "$prefix/$file.new" ;;
        esac
    done <"$list.new"
    chmod 755 "$prefix/share/longwire/uninstall.sh.new"
    # Here and not in the download: no program may run in a /tmp that is mounted noexec.
    version_of "$prefix/bin/longwire.new"
    copying=''

    # A running program is not written over, but replaced.
    while IFS= read -r file; do
        # A file would be moved into the folder that a link names.
        [ ! -L "$prefix/$file" ] || rm -f "$prefix/$file"
        mv -f "$prefix/$file.new" "$prefix/$file"
    done <"$list.new"
    echo share/longwire/installed >>"$list.new"
    # Files of an earlier version that this one no longer has.
    [ ! -e "$list" ] || grep -vxF -f "$list.new" "$list" | while IFS= read -r file; do rm -f "$prefix/$file"; done
    mv -f "$list.new" "$list"
    told
}

version_of() {
    said=$("$1" --version 2>&1) || fail "the program does not run on this machine: $said"
}

# Runs at every end of this script.
clean() {
    [ -z "$folder" ] || rm -rf "$folder"
    [ -n "$copying" ] || return 0
    while IFS= read -r file; do rm -f "$prefix/$file.new"; done <"$list.new"
    rm -f "$list.new"
    echo "install.sh: the copy to $prefix did not succeed; what was installed there is as before" >&2
}

uninstaller() {
    cat <<END
#!/bin/sh
# Removes what install.sh has put below $prefix, and the folders that are empty then.
set -eu
cd '${prefix:-/}'
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
As a service, as root:
  useradd --system --user-group --home-dir /var/lib/longwire --shell /usr/sbin/nologin --groups www-data longwire
  install -D -m 644 $prefix/share/longwire/longwire.toml /etc/longwire/longwire.toml
  install -m 644 $prefix/share/longwire/longwire.service /etc/systemd/system/
  systemctl daemon-reload && systemctl enable --now longwire
Remove it:     $prefix/share/longwire/uninstall.sh
More:          $prefix/share/doc/longwire/docs/install.md
END
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

main "$@"
