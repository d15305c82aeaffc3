#!/bin/sh
# deb.sh: a Debian package of stepfs for the release that this runs on, in dist/. It is built in a
# copy of the source, so that nothing but dist/ changes here. PIP_ARGS and EXTRAS as for
# systemd/install.sh: with EXTRAS=redis the package can do what the option notify= needs.
set -eu
cd "$(dirname "$0")/.."

lacking=$(dpkg-checkbuilddeps 2>&1 | sed -n 's/.*[Uu]nmet build dependencies: //p') || true
if [ -n "$lacking" ]; then
    echo "deb.sh: as root, run: apt-get install build-essential debhelper, and for: $lacking" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/stepfs"
tar -c --exclude=.git --exclude=.venv --exclude=build --exclude=dist --exclude='.*_cache' \
    --exclude=__pycache__ --exclude='*.egg-info' . | tar -x -C "$work/stepfs"
(cd "$work/stepfs" && dpkg-buildpackage --build=binary --no-sign --unsigned-changes)
mkdir -p dist
cp "$work"/*.deb dist/
ls dist/*.deb
