"""The version of stepfs."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The version of the installed package; `0+uninstalled` if only its files are there."""
    try:
        return metadata.version("stepfs")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"
