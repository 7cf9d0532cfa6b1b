#!/usr/bin/env bash
# Installs the package with Composer as a shop does and runs a shop's programs with it: by path, and as the archive of a version that
# split.sh has tagged. Needs no network: psr/log and psr/event-dispatcher are those of Debian.
#
#   package.sh     with LONGWIRE_ROUTER and LONGWIRE_TCP in the environment; prints a line for each thing that has been seen
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Nothing of this machine's own: no configuration, no cache, no network.
export COMPOSER_HOME=$work/composer COMPOSER_CACHE_DIR=$work/cache COMPOSER_ALLOW_SUPERUSER=1 COMPOSER_NO_INTERACTION=1
export GIT_CONFIG_GLOBAL=$work/gitconfig GIT_CONFIG_NOSYSTEM=1
unset GIT_DIR GIT_INDEX_FILE GIT_WORK_TREE
mkdir "$COMPOSER_HOME"
printf '[user]\nname = Shop\nemail = shop@example.org\n[init]\ndefaultBranch = main\n[safe]\ndirectory = *\n' >"$GIT_CONFIG_GLOBAL"

fail() {
    echo "package.sh: $1" >&2
    exit 1
}

# Runs a command, and shows what it printed only if it fails.
quietly() {
    timeout 100 "$@" >"$work/output" 2>&1 || { cat "$work/output" >&2; fail "failed: $*"; }
}

# A Longwire with the files that are here, and a commit of them.
longwire=$work/longwire
mkdir "$longwire"
cp "$here"/../{Cargo.toml,LICENSE-MIT,LICENSE-APACHE} "$longwire"
cp -r "$here" "$longwire/php-client"
rm -rf "$longwire/php-client/vendor" "$longwire/php-client/composer.lock"
version=$(sed -n '/^version = /{s/^version = "\(.*\)"$/\1/p;q}' "$longwire/Cargo.toml")
commit() {
    git -C "$longwire" init --quiet
    git -C "$longwire" add --all
    git -C "$longwire" commit --quiet --allow-empty -m "$1"
}
release() {
    sed -i "s/^version = .*/version = \"$1\"/" "$longwire/Cargo.toml"
    printf '\n## [%s] - 2026-01-01\n' "$1" >>"$longwire/php-client/CHANGELOG.md"
    commit "Release $1"
    git -C "$longwire" tag "v$1"
}
split=$work/split.git
split() {
    "$longwire/php-client/split.sh" "$split" https://example.org/longwire
}

quietly composer validate --strict "$here/composer.json"
echo "composer.json is valid"
(cd "$here" && quietly phpcs)
echo "the coding standard is kept"

commit "Begin"
split >/dev/null
[[ -z $(git -C "$split" tag) ]] || fail "a commit without a tag is not a version"
release "$version"
split >/dev/null
before=$(git -C "$split" for-each-ref)
split >/dev/null
[[ $(git -C "$split" for-each-ref) == "$before" ]] || fail "a second run has changed something"
sed -i 's/^version = .*/version = "99.0.0"/' "$longwire/Cargo.toml"
commit "Forget the tag's version"
git -C "$longwire" tag v98.0.0
if split 2>/dev/null; then fail "a tag that is not the version was taken"; fi
git -C "$longwire" tag --delete v98.0.0 >/dev/null
release 99.0.1
split >/dev/null
[[ $(git -C "$split" tag | xargs) == "v$version v99.0.1" ]] || fail "the tags are $(git -C "$split" tag | xargs)"
[[ $(git -C "$split" rev-list --count main) == 3 ]] || fail "each change is one commit"
newest=$(git -C "$split" rev-parse main)
"$longwire/php-client/split.sh" "$split" https://example.org/longwire "v$version" >/dev/null
[[ $(git -C "$split" rev-parse main) == "$newest" ]] || fail "an older version has replaced a newer one"
if "$longwire/php-client/split.sh" "$split" https://example.org/longwire "v$version~1" 2>/dev/null; then fail "main went back"; fi
by_hand=$(git -C "$split" commit-tree "main^{tree}" -p main -m "Mend a word")
git -C "$split" update-ref refs/heads/main "$by_hand"
if split 2>/dev/null; then fail "a commit by hand was undone"; fi
git -C "$split" update-ref refs/heads/main "$newest"
git -C "$split" show "v$version:README.md" | grep -q "](https://example.org/longwire/blob/v$version/README.md" \
    || fail "README.md has no links to Longwire's pages"
if git -C "$split" grep -q '](\.\./' "v$version" -- '*.md'; then fail "a link leaves the repository"; fi
git -C "$split" archive --format=zip --output="$work/client.zip" "v$version"
files=$(python3 -c 'import sys, zipfile; print(*sorted({n.split("/")[0] for n in zipfile.ZipFile(sys.argv[1]).namelist()}))' "$work/client.zip")
[[ $files == "CHANGELOG.md LICENSE-APACHE LICENSE-MIT README.md api.php composer.json src" ]] || fail "the archive has $files"
echo "split.sh has tagged $version"

# What Packagist would answer: the composer.json of the tag with its version and archive, and the interfaces of PSR-3 and PSR-14.
git -C "$split" show "v$version:composer.json" >"$work/composer.json"
mkdir "$work/packagist"
php -r '
    [, $work, $version] = $argv;
    $psr = static fn (string $name, string $version, string $folder): array => [$version => [
        "name" => $name,
        "version" => $version,
        "dist" => ["type" => "path", "url" => "/usr/share/php/Psr/$folder"],
        "autoload" => ["psr-4" => ["Psr\\$folder\\" => ""]],
    ]];
    $dist = ["type" => "zip", "url" => "file://$work/client.zip", "shasum" => sha1_file("$work/client.zip")];
    $own = json_decode(file_get_contents("$work/composer.json"), true) + ["version" => $version, "dist" => $dist];
    $installed = static fn (string $package): string => preg_replace("/[-+].*/", "", exec("dpkg-query -W -f \\\${Version} $package"));
    file_put_contents("$work/packagist/packages.json", json_encode(["packages" => [
        "longwire/client" => [$version => $own],
        "psr/log" => $psr("psr/log", $installed("php-psr-log"), "Log"),
        "psr/event-dispatcher" => $psr("psr/event-dispatcher", $installed("php-psr-event-dispatcher"), "EventDispatcher"),
    ]]));' "$work" "$version"
printf '{"repositories": [{"packagist.org": false}, {"type": "composer", "url": "file://%s"}]}' "$work/packagist" >"$COMPOSER_HOME/config.json"

# A shop's project without the package.
shop() {
    cp -r "$here/tests/shop" "$work/$1"
    printf '{"name": "shop/%s", "autoload": {"psr-4": {"Shop\\\\": "src/"}}}' "$1" >"$work/$1/composer.json"
    cd "$work/$1"
}

# Runs the shop's programs; $1 is a part of the path of the package.
use_it() {
    local printed
    printed=$(timeout 100 php push.php "$1") || true
    [[ $printed == pushed ]] || fail "push.php printed: $printed"
    timeout 100 phpunit --colors=never --bootstrap vendor/autoload.php tests >"$work/output" 2>&1 || true
    grep -q '^OK (3 tests, ' "$work/output" || { cat "$work/output" >&2; fail "phpunit has failed"; }
}

shop archive
quietly composer require longwire/client
[[ $(composer show --format=json longwire/client | php -r 'echo json_decode(stream_get_contents(STDIN), true)["versions"][0];') == "$version" ]] \
    || fail "another version than $version is installed"
grep -q "\"longwire/client\": \"^${version%.*}" composer.json || fail "composer.json has $(grep longwire composer.json)"
use_it "$work/archive/vendor/longwire/client/src/"
echo "the archive of $version works"

shop path
quietly composer config repositories.longwire path "$longwire/php-client"
quietly composer require longwire/client:@dev
use_it "$longwire/php-client/src/"
echo "the path works"

shop vcs
quietly composer config repositories.longwire vcs "$split"
quietly composer require --prefer-source longwire/client:99.0.1
use_it "$work/vcs/vendor/longwire/client/src/"
echo "the tag of the split repository works"
