#!/usr/bin/env bash
# Installs what a make target needs beside cargo, from Debian's packages.
#
#   tests/install-deps.sh build    what cargo needs to build: a C compiler
#   tests/install-deps.sh demo     what `make demo` needs beside that: php-fpm
#   tests/install-deps.sh cluster  what `make cluster` needs beside that: haproxy, redis-server, nats-server
#   tests/install-deps.sh packages what packaging/build.sh needs: xz, python's venv
#   tests/install-deps.sh test     what the tests need beside that: the php command, phpunit, Composer, PHP_CodeSniffer, the interfaces
#                                  of PSR-3 and PSR-14, nginx, openssl, curl, a browser with its driver, ip (for networks of their
#                                  own), buildah and crun (for images), python's venv and its YAML, and what answers FastCGI: a C
#                                  compiler with libfcgi, fcgiwrap, Perl with FCGI and Mojolicious, uWSGI, php-cgi, Go, npm; Laravel
#                                  and Symfony; mmdebstrap, for a fresh Debian to install the .deb in
#   tests/install-deps.sh bench    what is measured beside Longwire: php-fpm, nginx, nchan
#
# Does nothing, quickly, when everything is there. Elsewhere than on Debian or Ubuntu it names what is missing.
set -euo pipefail

usage() {
    sed -n 's/^# \{0,1\}//; 2,15p' "$0" >&2
    exit 2
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# php-fpm lives in /usr/sbin, which is not on everybody's PATH, and carries its version in its name.
has_php_fpm() {
    local file
    has php-fpm && return
    for file in /usr/sbin/php-fpm[78]* /usr/local/sbin/php-fpm; do
        [[ -x $file ]] && return
    done
    return 1
}

missing_for() {
    has cc || printf '%s\n' gcc libc6-dev
    [[ $1 != build ]] || return 0
    if [[ $1 == packages || $1 == test ]]; then
        has xz || echo xz-utils
        python3 -c 'import ensurepip' >/dev/null 2>&1 || echo python3-venv
    fi
    [[ $1 != packages ]] || return 0
    has_php_fpm || echo php-fpm
    if [[ $1 == bench ]]; then
        # Its package brings an nginx that it was built for.
        [[ -x /usr/sbin/nginx && -e /usr/lib/nginx/modules/ngx_nchan_module.so ]] || printf '%s\n' nginx libnginx-mod-nchan
    fi
    [[ $1 == cluster || $1 == test ]] || return 0
    [[ -x /usr/sbin/haproxy ]] || has haproxy || echo haproxy
    has redis-server || echo redis-server
    [[ -x /usr/sbin/nats-server ]] || has nats-server || echo nats-server
    [[ $1 == test ]] || return 0
    has php || echo php-cli
    has phpunit || echo phpunit
    has composer || echo composer
    # Composer unpacks archives with it.
    has unzip || echo unzip
    has phpcs || echo php-codesniffer
    [[ -e /usr/share/php/Psr/Log/autoload.php ]] || echo php-psr-log
    [[ -e /usr/share/php/Psr/EventDispatcher/autoload.php ]] || echo php-psr-event-dispatcher
    [[ -x /usr/sbin/nginx ]] || echo nginx-light
    has openssl || echo openssl
    has curl || echo curl
    has buildah || echo buildah
    has crun || echo crun
    has chromium || echo chromium
    has chromedriver || echo chromium-driver
    [[ -x /usr/sbin/ip || -x /sbin/ip ]] || echo iproute2
    # Debian's python, whatever else is called python3.
    /usr/bin/python3 -c 'import yaml' >/dev/null 2>&1 || echo python3-yaml
    [[ -e /usr/include/fcgiapp.h ]] || echo libfcgi-dev
    [[ -x /usr/sbin/fcgiwrap ]] || echo fcgiwrap
    perl -MFCGI -e 1 2>/dev/null || echo libfcgi-perl
    perl -MMojo::Server::FastCGI -e 1 2>/dev/null || echo libmojo-server-fastcgi-perl
    has uwsgi_python3 || echo uwsgi-plugin-python3
    has php-cgi || echo php-cgi
    has go || echo golang-go
    # For node-fastcgi (tests/npm.sh), with the node that it needs.
    has npm || echo npm
    [[ -e /usr/share/php/Illuminate/autoload.php ]] || echo php-laravel-framework
    [[ -e /usr/share/php/Symfony/Bundle/FrameworkBundle/autoload.php ]] || echo php-symfony-framework-bundle
    [[ -e /usr/share/php/Symfony/Bundle/SecurityBundle/autoload.php ]] || echo php-symfony-security-bundle
    has mmdebstrap || echo mmdebstrap
    [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || echo debian-archive-keyring
}

case ${1:-} in
    build | demo | cluster | packages | test | bench) group=$1 ;;
    *) usage ;;
esac

mapfile -t missing < <(missing_for "$group")
if ((${#missing[@]} == 0)); then
    exit 0
fi

if ! has apt-get; then
    echo "make $group needs these programs, and there is no apt-get to install them with: ${missing[*]}" >&2
    exit 1
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
    if ! has sudo; then
        echo "make $group needs these packages; install them as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

echo "installing ${missing[*]}" >&2
# Packages start their services when they are installed. A pool that nobody asked for would take workers, so none
# is started where a policy can be set and none is there yet.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi

install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --quiet --no-install-recommends "${missing[@]}" </dev/null >&2
}

# A fresh machine has no package lists, an old one has stale ones: in both cases the first try fails and the second, after
# an update, does not.
install 2>/dev/null || {
    "${as_root[@]}" apt-get update --quiet </dev/null >&2
    install
}

mapfile -t missing < <(missing_for "$group")
if ((${#missing[@]} > 0)); then
    echo "still missing after the installation: ${missing[*]}" >&2
    exit 1
fi
