#!/usr/bin/env bash
# Updates the repository from which Packagist takes longwire/client. Packagist wants composer.json at the top of a repository, so that
# repository has this folder alone, with the licences beside it.
#
#   php-client/split.sh REPOSITORY URL [COMMIT]
#
#   REPOSITORY  where to push: a URL, or a folder, which is made if it is missing
#   URL         Longwire's own repository on the web; links of README.md that leave this folder lead there
#   COMMIT      a commit of Longwire; HEAD if absent
#
# The branch main gets one commit with the folder as it is in COMMIT. If COMMIT has a tag vX.Y.Z, the new commit gets it too: that is the
# version for Packagist. The tag must be the version in Cargo.toml, and CHANGELOG.md must have a section for it. A run that has nothing to
# change changes nothing. If main already follows a commit that COMMIT does not contain, such as a newer one, main stays and only the tag
# is pushed. If somebody has committed to main by hand, the script fails: it would undo that.
set -euo pipefail

if (($# < 2 || $# > 3)); then
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
repository=$1 url=${2%/} wanted=${3:-HEAD}

fail() {
    echo "split.sh: $1" >&2
    exit 1
}

[[ $url =~ ^https?://[A-Za-z0-9./:_~-]+$ ]] || fail "$url is not the address of a repository on the web"
# A relative folder is meant from where the caller is.
[[ $repository == *:* ]] || repository=$(realpath --canonicalize-missing "$repository")
cd "$(dirname "$0")/.."
commit=$(git rev-parse --verify --quiet --end-of-options "$wanted^{commit}") || fail "there is no commit $wanted"

version=$(git show "$commit:Cargo.toml" | sed -n '/^version = /{s/^version = "\(.*\)"$/\1/p;q}')
tag=$(git tag --points-at "$commit" --list 'v[0-9]*')
if [[ -n $tag ]]; then
    [[ $tag == "v$version" ]] || fail "the tag is ${tag//$'\n'/, }, and Cargo.toml says $version"
    git show "$commit:php-client/CHANGELOG.md" | grep --quiet --fixed-strings "## [$version]" \
        || fail "php-client/CHANGELOG.md has no section for $version"
fi

if [[ $repository != *:* && ! -e $repository/HEAD && ! -e $repository/.git ]]; then
    [[ ! -e $repository || -z $(ls -A "$repository") ]] || fail "$repository is no repository, and not empty"
    git init --quiet --bare --initial-branch=main "$repository"
fi

index=$(mktemp -d)
trap 'rm -rf "$index"' EXIT
export GIT_INDEX_FILE=$index/index
git read-tree "$commit:php-client"
git update-index --force-remove split.sh

# Adds a file to the tree: its content comes from standard input.
add() {
    git update-index --add --cacheinfo "100644,$(git hash-object -w --stdin),$1"
}

for licence in LICENSE-MIT LICENSE-APACHE; do
    git show "$commit:$licence" | add "$licence"
done
for page in README.md CHANGELOG.md; do
    git show "$commit:php-client/$page" | sed "s#](\.\./#]($url/blob/${tag:-HEAD}/#g" | add "$page"
done
# What an archive does not need; packaging/build.sh leaves the same out of packages. These lines are not in this folder, because they would
# hold for archives of Longwire too.
add .gitattributes <<'LINES'
/.gitattributes export-ignore
/phpcs.xml.dist export-ignore
/phpstan.neon.dist export-ignore
/phpunit.xml export-ignore
/tests export-ignore
LINES
tree=$(git write-tree)

# The commit of Longwire that a commit of main follows: its subject names it.
followed() {
    git rev-parse --verify --quiet --end-of-options "$(git show -s --format=%s "$1" | sed -n 's/^Follow Longwire //p')^{commit}"
}

# The newest commit of main that follows COMMIT or a commit before it.
parent_of() {
    local on_main
    for on_main in $(git rev-list --first-parent "$1"); do
        if git merge-base --is-ancestor "$(followed "$on_main")" "$commit" 2>/dev/null; then
            echo "$on_main"
            return
        fi
    done
}

parent='' tip=''
if [[ -n $(git ls-remote "$repository" refs/heads/main) ]]; then
    git fetch --quiet --no-tags "$repository" refs/heads/main
    tip=$(git rev-parse FETCH_HEAD)
    followed "$tip" >/dev/null \
        || fail "main there ends with \"$(git show -s --format=%s "$tip")\": it is made by hand, or follows a commit that this clone does not have"
    parent=$(parent_of "$tip")
    [[ $parent == "$tip" || -n $tag ]] \
        || fail "main there follows $(followed "$tip"), which $wanted does not contain: nothing is pushed"
fi
if [[ -n $parent && $(git rev-parse "$parent^{tree}") == "$tree" ]]; then
    new=$parent
else
    # The same commit of Longwire gives the same commit there.
    GIT_AUTHOR_NAME=$(git show -s --format=%an "$commit") GIT_AUTHOR_EMAIL=$(git show -s --format=%ae "$commit")
    GIT_COMMITTER_NAME=$(git show -s --format=%cn "$commit") GIT_COMMITTER_EMAIL=$(git show -s --format=%ce "$commit")
    GIT_AUTHOR_DATE=$(git show -s --format=%aI "$commit") GIT_COMMITTER_DATE=$(git show -s --format=%cI "$commit")
    export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
    new=$(git commit-tree "$tree" ${parent:+-p "$parent"} -m "Follow Longwire ${tag:-$commit}")
fi
# Git refuses to move a tag that is there.
if [[ $parent == "$tip" ]]; then
    git push --quiet --atomic "$repository" "$new:refs/heads/main" ${tag:+"$new:refs/tags/$tag"}
    echo "main is $new${tag:+, tagged $tag}"
else
    git push --quiet "$repository" "$new:refs/tags/$tag"
    echo "$tag is $new; main stays at $tip"
fi
