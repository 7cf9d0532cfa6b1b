#!/usr/bin/env bash
# Builds what people install: a .deb, an .rpm, a download, its debug file, the bill of materials and SHA256SUMS.
#
#   packaging/build.sh [--arch ARCH] [--profile PROFILE] [--binary FILE] [--only KINDS] [--level LEVEL] [--out FOLDER]
#
#   --arch ARCH        x86_64 (the default) or aarch64, which is cross-built: it needs gcc-aarch64-linux-gnu and
#                      `rustup target add aarch64-unknown-linux-gnu`
#   --profile PROFILE  of cargo: release (the default)
#   --binary FILE      packs this binary instead of building one
#   --only KINDS       of deb, rpm, download and debug these, separated by commas; left out: all of them
#   --level LEVEL      of the compression by xz, 0 to 9: 6 (the default) is small, 0 is fast
#   --out FOLDER       left out: packages, in cargo's target folder. Only the files of an earlier build are removed from it
#
# The program is linked statically with glibc, so it runs on any Linux and in an empty folder. With musl it would too, but for musl rustup
# has to download another standard library of Rust.
#
# The same commit, toolchain and folder give the same bytes. These variables count too, if they are set:
#
#   SOURCE_DATE_EPOCH   the time of all files, in seconds since 1970; left out: that of the last commit
#   LONGWIRE_COMMIT     the commit that `longwire --version` names; left out: the last one
#   PACKAGE_MAINTAINER  "NAME <ADDRESS>", in the .deb and the .rpm
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
arch=x86_64 profile=release binary='' only=deb,rpm,download,debug level=6 out=''
work=''

main() {
    arguments "$@"
    cd "$root"
    target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
    out=$(realpath -m "${out:-$target_dir/packages}")
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
    export LC_ALL=C TZ=UTC
    umask 022
    look_for_tools
    tests/venv.sh packages
    nfpm=$target_dir/packages-venv/bin/nfpm

    [[ -n $binary ]] || build
    mkdir -p "$out"
    rm -f "$out"/longwire[-_]* "$out/SHA256SUMS"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    split_debug_file
    python3 packaging/third_party.py "$triple" "$work/THIRD-PARTY.txt" "$out/longwire-$version-$arch.cdx.json"
    ! wants download || make_download
    make_packages
    (cd "$out" && sha256sum longwire[-_]* >SHA256SUMS)
    (cd "$out" && ls -l)
}

arguments() {
    while (($# > 0)); do
        case $1 in
            --arch) arch=${2:?--arch needs a value} ;;
            --profile) profile=${2:?--profile needs a value} ;;
            --binary) binary=$(realpath -e "${2:?--binary needs a file}") ;;
            --only) only=${2:?--only needs a value} ;;
            --level) level=${2:?--level needs a value} ;;
            --out) out=$(realpath -m "${2:?--out needs a folder}") ;;
            *) fail "unknown argument $1; the head of packaging/build.sh lists them" ;;
        esac
        shift 2
    done
    case $arch in
        x86_64) triple=x86_64-unknown-linux-gnu debian_arch=amd64 tools='' ;;
        aarch64) triple=aarch64-unknown-linux-gnu debian_arch=arm64 tools=aarch64-linux-gnu- ;;
        *) fail "--arch must be x86_64 or aarch64, not $arch" ;;
    esac
    [[ $level == [0-9] ]] || fail "--level must be 0 to 9, not $level"
    [[ $only =~ ^(deb|rpm|download|debug)(,(deb|rpm|download|debug))*$ ]] || fail "--only takes deb, rpm, download and debug, not $only"
    # A machine of the other kind builds for itself with its own tools.
    [[ $arch != "$(uname -m)" ]] || tools=''
}

wants() {
    [[ ,$only, == *,"$1",* ]]
}

look_for_tools() {
    local name missing=()
    for name in cargo python3 ar tar xz gzip sha256sum "${tools}objcopy" "${tools}readelf" "${tools}gcc"; do
        command -v "$name" >/dev/null || missing+=("$name")
    done
    ((${#missing[@]} == 0)) || fail "these programs are missing: ${missing[*]}
  (Debian: apt install xz-utils binutils gcc, for aarch64 gcc-aarch64-linux-gnu)"
    if [[ -z $binary && ! -d $(rustc --print sysroot)/lib/rustlib/$triple ]]; then
        fail "this Rust toolchain has no standard library for $triple: rustup target add $triple"
    fi
}

# The flags that make the program static, and the size of pages, are also in docker/Dockerfile: change both.
build() {
    local flags="-C target-feature=+crt-static -C link-arg=-Wl,--build-id=sha1"
    # In a static program the crate getrandom does not find the C library's function, and would need /dev/urandom.
    flags+=' --cfg getrandom_backend="linux_getrandom"'
    # No package shall name the folders of the machine that built it.
    flags+=" --remap-path-prefix=$root=longwire --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
    local command=(build)
    # It writes the list of dependencies into the binary, where `cargo audit bin` and scanners of images find it.
    ! cargo auditable --version >/dev/null 2>&1 || command=(auditable build)
    if [[ $arch == aarch64 ]]; then
        # Kernels have pages of 4, 16 or 64 KiB. jemalloc is built for the largest, and then runs with the smaller ones too.
        export JEMALLOC_SYS_WITH_LG_PAGE=16
        if [[ -n $tools ]]; then
            export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${tools}gcc
            export CC_aarch64_unknown_linux_gnu=${tools}gcc AR_aarch64_unknown_linux_gnu=${tools}ar
        fi
    fi
    # Shown by `longwire --version`.
    export LONGWIRE_COMMIT=${LONGWIRE_COMMIT-$(git rev-parse --short=10 HEAD 2>/dev/null || true)}
    # With --target these flags are not for build scripts.
    RUSTFLAGS=$flags CARGO_INCREMENTAL=0 \
        cargo "${command[@]}" --locked --profile "$profile" --target "$triple" --bin longwire
    local folder=$profile
    [[ $profile != dev ]] || folder=debug
    binary=$target_dir/$triple/$folder/longwire
}

# The program without its line tables, and these in a file of their own, which a debugger finds by the program's build id.
split_debug_file() {
    local id folder
    "${tools}objcopy" --strip-all "$binary" "$work/longwire"
    wants debug || return 0
    id=$("${tools}readelf" --notes "$binary" | sed -n 's/^ *Build ID: //p' | head -n 1)
    if [[ -z $id ]]; then
        echo "build.sh: $binary has no build id, so there is no debug file" >&2
        return
    fi
    folder=usr/lib/debug/.build-id/${id:0:2}
    mkdir -p "$work/debug/$folder"
    "${tools}objcopy" --only-keep-debug --compress-debug-sections=zlib "$binary" "$work/debug/$folder/${id:2}.debug"
    archive "$work/debug" usr "longwire-$version-$arch-linux-debug.tar.xz"
}

# Reproducible: sorted names, no owners, one time.
archive() {
    tar --create --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        --directory "$1" "$2" | xz -$level --threads=1 >"$out/$3"
}

# The files that the packages and the download have in common, for a folder such as /usr.
tree() {
    local usr=$1 doc=$1/share/doc/longwire share=$1/share/longwire
    install -D -m 755 "$work/longwire" "$usr/bin/longwire"
    install -D -m 644 -t "$doc" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$work/THIRD-PARTY.txt"
    install -D -m 644 -t "$doc/docs" docs/*.md
    install -D -m 644 -t "$doc/examples" packaging/examples/*
    copy php-examples "$share/examples"
    # Examples name ../../php-client/api.php.
    copy php-client "$share/php-client"
    # What only its developers need; php-client/split.sh leaves the same out of Composer's archives.
    (cd "$share/php-client" && rm -r phpcs.xml.dist phpstan.neon.dist phpunit.xml split.sh tests)
    ln -s php-client/api.php "$share/api.php"
    mkdir -p "$usr/share/php/Longwire"
    ln -s ../../longwire/php-client/src "$usr/share/php/Longwire/Client"
    install -D -m 644 -t "$usr/share/man/man1" packaging/man/*.1
    install -D -m 644 packaging/completions/longwire.bash "$usr/share/bash-completion/completions/longwire"
    install -D -m 644 -t "$usr/share/fish/vendor_completions.d" packaging/completions/longwire.fish
}

# Copies the files that git knows, or all where there is no git (an archive of the source).
copy() {
    local file
    while IFS= read -r file; do
        install -D -m 644 "$1/$file" "$2/$file"
    done < <(cd "$1" && { git ls-files 2>/dev/null || find . -type f | sort; })
}

make_download() {
    local name=longwire-$version-$arch-linux
    tree "$work/download/$name"
    install -D -m 644 -t "$work/download/$name/share/longwire" packaging/longwire.toml packaging/longwire.service
    install -m 755 packaging/install.sh "$work/download/$name/install.sh"
    install -D -m 644 -t "$work/download/$name/share/zsh/site-functions" packaging/completions/_longwire
    archive "$work/download" "$name" "$name.tar.xz"
}

make_packages() {
    local stage=$work/stage
    tree "$stage/usr"
    gzip -9 --no-name "$stage"/usr/share/man/man1/*.1
    install -D -m 644 -t "$stage/usr/lib/systemd/system" packaging/longwire.service
    cp -r packaging/deb packaging/rpm packaging/nfpm.yaml packaging/longwire.toml packaging/copyright packaging/completions "$stage/"
    chmod 755 "$stage"/deb/* "$stage"/rpm/*
    export NFPM_VERSION=$version NFPM_ARCH=$debian_arch
    export NFPM_MAINTAINER=${PACKAGE_MAINTAINER:-The Longwire authors <maintainers@longwire.invalid>}
    config_of_fedora >"$stage/longwire-rpm.toml"
    changelog_of_debian | gzip -9 --no-name >"$stage/changelog.Debian.gz"
    find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    if wants deb; then
        package deb "longwire_${version}_$debian_arch.deb"
        compress_deb "$out/longwire_${version}_$debian_arch.deb"
    fi
    ! wants rpm || package rpm "longwire-$version-1.$arch.rpm"
}

package() {
    (cd "$work/stage" && "$nfpm" package --config nfpm.yaml --packager "$1" --target "$out/$2")
}

# nfpm's own xz is slow, and its result is a third larger. A .deb is an archive of three members, which ar can write too.
compress_deb() {
    mkdir "$work/deb"
    (cd "$work/deb" && ar x "$1" && xz -$level --threads=1 data.tar && rm "$1" &&
        ar rcD "$1" debian-binary control.tar.gz data.tar.xz)
}

config_of_fedora() {
    local text
    text=$(sed --file packaging/fedora.sed packaging/longwire.toml)
    ! grep -n 'Debian\|www-data\|run/php/\|8\.2' <<<"$text" >&2 ||
        fail "these lines of the .rpm's configuration are for Debian: see packaging/fedora.sed"
    printf '%s\n' "$text"
}

changelog_of_debian() {
    printf 'longwire (%s) stable; urgency=medium\n\n  * See /usr/share/doc/longwire/CHANGELOG.md.\n\n -- %s  %s\n' \
        "$version" "$NFPM_MAINTAINER" "$(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')"
}

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

main "$@"
