#!/bin/sh
# install.sh install|uninstall, as `make install` and `make uninstall` call it, with
#   PREFIX   where stepfs lives                  /usr/local
#   DESTDIR  put before every path, for packages (empty)
#   SBINDIR  the only place mount(8) looks in    /sbin
#   CONFDIR  holds stepfs/NAME.conf              /etc
#   PYTHON   runs it; 3.11 or newer              /usr/bin/python3, else python3
#   EXTRAS   optional parts: redis               (empty)
#   PIP_ARGS more for pip, such as --no-index --find-links=WHEELS
#
# The package and what it needs go into an environment of their own, PREFIX/lib/stepfs, so that
# packages of the system's Python are neither used nor changed. Every file and directory made is listed in
# PREFIX/lib/stepfs/manifest, and uninstall removes exactly these.
set -eu
cd "$(dirname "$0")/.."

PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
SBINDIR=${SBINDIR:-/sbin}
CONFDIR=${CONFDIR:-/etc}
home=$PREFIX/lib/stepfs
manifest=$home/manifest

interpreter() {
    # One that belongs to an environment may go away with it: take what that was made from.
    "${PYTHON:-python3}" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
}

directory() {
    if [ ! -d "$DESTDIR$1" ]; then
        directory "$(dirname "$1")"
        mkdir "$DESTDIR$1"
        echo "$1/" >>"$work/manifest"
    fi
}

place() { # MODE SOURCE TARGET: a copy that names this PREFIX
    directory "$(dirname "$3")"
    sed "s|/usr/local/|$PREFIX/|g; s|/etc/stepfs/|$CONFDIR/stepfs/|g" "$2" >"$work/placed"
    install -m "$1" "$work/placed" "$DESTDIR$3"
    echo "$3" >>"$work/manifest"
}

link() { # TARGET NAME
    directory "$(dirname "$2")"
    ln -sfn "$1" "$DESTDIR$2"
    echo "$2" >>"$work/manifest"
}

environment() {
    python=$(interpreter)
    "$python" -m venv "$work/tools"
    mkdir "$work/source"
    cp -r pyproject.toml README.md LICENSE storage fusefs "$work/source"
    directory "$PREFIX/lib"
    "$python" -m venv --without-pip --symlinks "$DESTDIR$home"
    # shellcheck disable=SC2086 -- a list of arguments
    "$work/tools/bin/python" -m pip --python "$DESTDIR$home/bin/python" --quiet \
        --disable-pip-version-check install --no-compile ${PIP_ARGS:-} "$work/source${EXTRAS:+[$EXTRAS]}"
    # None of it may name the place where it was put together.
    sed -i '/^command = /d' "$DESTDIR$home/pyvenv.cfg"
    for script in "$DESTDIR$home"/bin/*; do
        case ${script##*/} in
            python*) ;;
            stepfs | mount.stepfs) sed -i "1s|.*|#!$home/bin/python -I|" "$script" ;;
            *) rm "$script" ;;
        esac
    done
    find "$DESTDIR$home" -name direct_url.json -delete
    rm -f "$DESTDIR$home/.gitignore" # of newer Pythons
    # coredis holds a module for newer Pythons only, which it does not load in others.
    "$DESTDIR$home/bin/python" -m compileall -q -x '/_py_3[0-9]*_' -s "$DESTDIR" "$DESTDIR$home/lib"
}

install_all() {
    umask 022
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$DESTDIR/"
    if [ -e "$DESTDIR$manifest" ]; then uninstall_all; fi

    environment
    place 755 systemd/clear-dead-mount "$home/clear-dead-mount"
    link "$home/bin/stepfs" "$PREFIX/bin/stepfs"
    link "$home/bin/mount.stepfs" "$PREFIX/bin/mount.stepfs"
    link "$home/bin/mount.stepfs" "$SBINDIR/mount.stepfs"
    link "$home/bin/mount.stepfs" "$SBINDIR/mount.fuse.stepfs"

    place 644 systemd/stepfs@.service "$PREFIX/lib/systemd/system/stepfs@.service"
    for unit in systemd/user/*; do
        place 644 "$unit" "$PREFIX/lib/systemd/user/${unit##*/}"
    done
    directory "$CONFDIR/stepfs"
    for example in systemd/examples/*; do
        place 644 "$example" "$PREFIX/share/doc/stepfs/examples/${example##*/}"
    done

    "$DESTDIR$home/bin/python" systemd/man/build.py "$work/man"
    for page in "$work"/man/*; do
        place 644 "$page" "$PREFIX/share/man/man${page##*.}/${page##*/}"
    done
    place 644 systemd/completions/stepfs.bash "$PREFIX/share/bash-completion/completions/stepfs"
    place 644 systemd/completions/stepfs.zsh "$PREFIX/share/zsh/site-functions/_stepfs"
    place 644 systemd/completions/stepfs.fish "$PREFIX/share/fish/vendor_completions.d/stepfs.fish"

    install -m 644 "$work/manifest" "$DESTDIR$manifest"
    tell_systemd daemon-reload
}

uninstall_all() {
    if [ ! -e "$DESTDIR$manifest" ]; then
        echo "install.sh: nothing is installed: there is no $DESTDIR$manifest" >&2
        return 1
    fi
    made=$(tac "$DESTDIR$manifest")
    printf '%s\n' "$made" | while read -r path; do
        case $path in
            */) ;;
            *) rm -f "$DESTDIR$path" ;;
        esac
    done
    rm -rf "$DESTDIR$home"
    printf '%s\n' "$made" | while read -r path; do
        case $path in
            */) rmdir --ignore-fail-on-non-empty "$DESTDIR$path" 2>/dev/null || true ;;
        esac
    done
}

tell_systemd() {
    if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
        systemctl "$@" || true
    fi
}

case ${1:-} in
    install) install_all ;;
    uninstall)
        tell_systemd stop 'stepfs@*.service'
        tell_systemd disable --quiet stepfs@.service
        uninstall_all
        tell_systemd daemon-reload
        ;;
    *)
        echo 'usage: install.sh install|uninstall' >&2
        exit 1
        ;;
esac
