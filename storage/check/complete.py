"""Creates files atomically, for repairs and the peer test."""

from __future__ import annotations

import os

from storage import posix as files


def create_complete(
    name: str,
    data: bytes,
    at: int,
    mode: int,
    owner: tuple[int, int] | None,
    exclusive: bool,
    sync: bool,
) -> None:
    """Atomically create the file `name` with the content `data`; on an error nothing has changed.

    With `exclusive` an existing file stays and EEXIST is raised; otherwise it is replaced. With `sync`
    the contents are on disk before the name, and the name on return. Raises `OSError`.
    """
    temporary = f".{name}.{files.token()}.tmp"
    files.write_new(temporary, data, at, mode, owner, sync)
    try:
        if exclusive:
            os.link(temporary, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            os.unlink(temporary, dir_fd=at)
        else:
            os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(temporary, dir_fd=at)
        raise
    if sync:
        os.fsync(at)
