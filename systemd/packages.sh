#!/bin/sh
# packages.sh run|test|deb: install the programs and headers that stepfs needs to be built and run,
# and for `test` or `deb` those that its tests or its Debian package need. On Debian and its
# derivatives apt-get installs what is missing; elsewhere this script names it and exits with 1.
# PYTHON names the interpreter.
set -eu
PYTHON=${PYTHON:-python3}

# One line each: the Debian package, then a command that succeeds where its content is there.
run='
fuse3            command -v fusermount3
libfuse3-dev     pkg-config --exists fuse3
pkg-config       command -v pkg-config
gcc              command -v gcc
libc6-dev        test -e /usr/include/stdio.h
python3          "$PYTHON" -c "import sys; sys.exit(sys.version_info < (3, 11))"
python3-dev      has_python_header
python3-venv     "$PYTHON" -c "import ensurepip, venv"
'
test="$run"'
acl              command -v setfacl
attr             command -v getfattr
bindfs           command -v bindfs
dash             command -v dash
e2fsprogs        command -v mkfs.ext4
exfat-fuse       command -v mount.exfat-fuse
exfatprogs       command -v mkfs.exfat
file             command -v file
findutils        command -v find
fish             command -v fish
git              command -v git
jq               command -v jq
less             command -v less
man-db           command -v man
mandoc           command -v mandoc
mmdebstrap       command -v mmdebstrap
moreutils        command -v sponge
procps           command -v pgrep
psmisc           command -v fuser
redis-server     command -v redis-server
ripgrep          command -v rg
rsync            command -v rsync
strace           command -v strace
systemd          command -v systemd-analyze
systemd-container command -v systemd-nspawn
tar              command -v tar
tmux             command -v tmux
util-linux       command -v findmnt
vim              command -v vim
xfsprogs         command -v mkfs.xfs
zsh              command -v zsh
'

deb="$run"'
build-essential  test -e /usr/share/build-essential/essential-packages-list
debhelper        command -v dh
'

has_python_header() {
    header=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    test -e "$header"
}

missing() {
    while read -r package probe; do
        if [ -n "$package" ] && ! eval "$probe" >/dev/null 2>&1 </dev/null; then
            printf '%s ' "$package"
        fi
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

case ${1:-} in
    run) wanted=$run ;;
    test) wanted=$test ;;
    deb) wanted=$deb ;;
    *) echo "usage: packages.sh run|test|deb" >&2; exit 1 ;;
esac

# systemd makes it at boot; where nothing has booted, fusermount3 needs it to unmount for a user.
provide_mtab() {
    [ -e /etc/mtab ] || as_root ln -s ../proc/self/mounts /etc/mtab
}

lacking=$(printf '%s' "$wanted" | missing)
[ -n "$lacking" ] || { provide_mtab; exit 0; }

if ! command -v apt-get >/dev/null; then
    cat >&2 <<END
stepfs: this system has no apt-get; install what these Debian packages hold, then try again:
    $lacking
(Fedora: fuse3 fuse3-devel pkgconf gcc glibc-devel python3-devel; Arch: fuse3 pkgconf gcc python)
END
    exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    echo "stepfs: as root, run: apt-get install $lacking" >&2
    exit 1
fi

echo "stepfs: installing $lacking"
as_root apt-get -qq update
# shellcheck disable=SC2086 -- a list of packages
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $lacking

lacking=$(printf '%s' "$wanted" | missing)
if [ -n "$lacking" ]; then
    echo "stepfs: still missing for $PYTHON after the installation: $lacking" >&2
    echo "stepfs: another interpreter can be named: make PYTHON=/usr/bin/python3 ..." >&2
    exit 1
fi
provide_mtab
