"""Which stepfs this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The version of the installed package; where only its files lie, a word that says so."""
    try:
        return metadata.version("stepfs")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"
