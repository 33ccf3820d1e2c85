"""The reference has every public name, and no other. `make docs` makes it of the docstrings; warnings are errors."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import pytest

import aiopg

from .pages import ROOT

REFERENCE = ROOT / "docs" / "reference"
PAGES = {path.name: path.read_text() for path in sorted(REFERENCE.glob("*.md"))}
SHOWN = re.findall(r"^::: (\S+)\n((?: {4}.*\n)*)", "\n".join(PAGES.values()), re.MULTILINE)
NAMES = [name for name, options in SHOWN if "show_root_heading: false" not in options]
"""Those that are shown with their name; of the others it is only the text."""


def test_every_public_name_is_shown_once() -> None:
    """What is added to `aiopg.__all__` is to be added to a page: `::: aiopg.NAME`."""
    public = {f"aiopg.{name}" for name in aiopg.__all__}
    assert sorted(public - set(NAMES)) == []
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_public(name: str) -> None:
    """It can be imported from where it is shown, and that place says that it is there."""
    assert not re.search(r"\._(?!_)", name)
    parent, _, last = name.rpartition(".")
    if not isinstance(find(name), ModuleType):
        assert last in importlib.import_module(parent).__all__


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_reference_is_in_the_navigation(page: str) -> None:
    """A page that nobody finds shows nothing."""
    assert re.search(rf"^ +- reference/{re.escape(page)}$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


def find(name: str) -> object:
    """The object of a dotted name that begins with a module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        parent, _, last = name.rpartition(".")
        value: object = getattr(importlib.import_module(parent), last)
        return value
