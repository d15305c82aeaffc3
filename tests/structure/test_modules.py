"""Modules stay short, and each has tests in a file of the same name or in a place given below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.commands import PROJECT
from tests.support.syntax import is_within, modules

TESTED_IN: Final[Mapping[str, str]] = {
    "fusefs.catalogue.meta_watches": "tests/fusefs/catalogue/test_catalogue.py",
    "fusefs.cli": "tests/mount/test_cli.py",
    "fusefs.coherence.recovery": "tests/faults/test_nothing_lost.py",
    "fusefs.coherence.store_directory": "tests/mount/test_store_directory.py",
    "fusefs.daemon": "tests/mount/lifecycle/test_lifecycle.py",
    "fusefs.dotdir": "tests/tree_and_mount/test_summaries.py",
    "fusefs.exits": "tests/mount/lifecycle/test_lifecycle.py",
    "fusefs.filesystem": "tests/tree_and_mount",
    "fusefs.fuse": "tests/mount",
    "fusefs.handles.base": "tests/fusefs/handles/test_view.py",
    "fusefs.handles.compact": "tests/tree_and_mount/test_compacting.py",
    "fusefs.handles.create": "tests/mount/test_fork.py",
    "fusefs.handles.document": "tests/mount/test_meta_file.py",
    "fusefs.inodes.control_files": "tests/tree_and_mount/test_appending.py",
    "fusefs.inodes.inode": "tests/fusefs/inodes/test_table.py",
    "fusefs.inodes.past": "tests/tree_and_mount/test_past.py",
    "fusefs.inodes.root": "tests/mount/test_sessions.py",
    "fusefs.inodes.services": "tests/fusefs/test_superblock.py",
    "fusefs.inodes.session_directory": "tests/mount/test_kept_attributes.py",
    "fusefs.kernel": "tests/support/model_kernel.py",
    "fusefs.mounts": "tests/mount/lifecycle/test_lifecycle.py",
    "fusefs.operations": "tests/mount/test_whole_tree.py",
    "fusefs.session.events": "tests/fusefs/coherence/test_events.py",
    "fusefs.session.looks": "tests/fusefs/session/test_restorer.py",
    "fusefs.session.means": "tests/fusefs/session/test_refresh.py",
    "fusefs.session.reach": "tests/fusefs/session/test_recent_steps.py",
    "fusefs.session.step_order": "tests/fusefs/session/test_step_table.py",
    "fusefs.version": "tests/packaging/test_installation.py",
    "fusefs.views.cuts": "tests/fusefs/session/test_extents.py",
    "fusefs.views.formats": "tests/fusefs/session/test_lead.py",
    "storage.append": "tests/storage/test_library.py",
    "storage.check": "tests/storage/test_check.py",
    "storage.demo": "tests/storage/test_demo.py",
    "storage.documents.worker": "tests/storage/documents/test_pool.py",
    "storage.formats.dialects": "tests/conformance/test_dialects.py",
    "storage.render.lines": "tests/storage/render/test_jsonl.py",
    "storage.render.pieces": "tests/storage/render/test_markdown.py",
    "storage.search": "tests/storage/test_search.py",
}
"""Where modules and folders without a test file of the same name are mostly tested."""
LINES_MAX: Final = 320
LONGER: Final[Mapping[str, str]] = {}
"""Modules that may be longer, each with the reason."""


def path_of(module: str) -> Path:
    """The file of a module."""
    path = PROJECT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_modules_are_short() -> None:
    lines = {
        name: len(path_of(name).read_text(encoding="utf-8").splitlines()) for name in modules()
    }
    assert sorted(name for name in lines if lines[name] > LINES_MAX) == sorted(LONGER)


def has_tests_of_its_name(module: str) -> bool:
    """Whether `tests/` has a file named and placed like the module."""
    package, _, name = module.rpartition(".")
    return PROJECT.joinpath("tests", *package.split("."), f"test_{name}.py").exists()


def homeless() -> dict[str, str]:
    """Modules without a test file of the same name, with the entry of `TESTED_IN` that covers each."""
    return {
        module: next((part for part in TESTED_IN if is_within(module, part)), "")
        for module in modules()
        if path_of(module).name != "__init__.py" and not has_tests_of_its_name(module)
    }


def test_every_module_has_a_test_file_of_its_name_or_an_entry_in_tested_in() -> None:
    assert [module for module, part in homeless().items() if not part] == []


def test_tested_in_has_no_superfluous_entry() -> None:
    assert sorted(TESTED_IN.keys() - homeless().values()) == []


@pytest.mark.parametrize("module", TESTED_IN)
def test_the_places_in_tested_in_exist(module: str) -> None:
    assert (PROJECT / TESTED_IN[module]).exists()
