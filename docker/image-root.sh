#!/bin/sh
# Lays out the files of the image in a new folder.
#
#   sh docker/image-root.sh FOLDER BINARY CERTIFICATES CONFIG
#
# FOLDER/files is the root of the image: the binary, the user, certificates and a configuration. FOLDER/run is /run/longwire, which
# belongs to the user.
set -eu

[ $# = 4 ] || {
    sed -n 's/^# \{0,1\}//; 2,7p' "$0" >&2
    exit 2
}
folder=$1 binary=$2 certificates=$3 config=$4

mkdir -p "$folder"
# Fails if the folder has been used before: an image must not have files of an earlier one.
mkdir "$folder/files" "$folder/run"
files=$folder/files
mkdir -p "$files/etc/longwire" "$files/etc/ssl/certs" "$files/usr/local/bin"
cp "$binary" "$files/usr/local/bin/longwire"
# For TLS to an engine with a certificate of a public authority.
cp -L "$certificates" "$files/etc/ssl/certs/ca-certificates.crt"
cp "$config" "$files/etc/longwire/longwire.toml"
# Dockerfile, compose.yaml, php-fpm.conf and the Helm chart have the same number.
echo 'longwire:x:10001:10001:longwire:/:/sbin/nologin' >"$files/etc/passwd"
echo 'longwire:x:10001:' >"$files/etc/group"
chmod -R u=rwX,go=rX "$folder"
chmod 755 "$files/usr/local/bin/longwire"
