"""A notebook whose cells await."""

from __future__ import annotations

import json

from tests.system.ranks import free_port

from .programs import EXAMPLES, ROOT, StartProgram

NOTEBOOK = EXAMPLES / "notebook.ipynb"


def saved_output(cell: dict[str, list[dict[str, object]]]) -> str:
    """What the file says that a cell printed."""
    texts = []
    for output in cell["outputs"]:
        lines = output["data"]["text/plain"] if "data" in output else output["text"]  # type: ignore[index]
        texts.append("".join(lines).rstrip("\n"))  # type: ignore[arg-type]
    return "\n".join(texts)


def test_every_cell_prints_what_the_notebook_shows(start: StartProgram) -> None:
    """The cells run in an event loop that is running already, with two workers as processes, and all end well."""
    (printed,) = start(str(ROOT / "tests" / "examples" / "cells.py"), str(NOTEBOOK), str(free_port())).lines()
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [text.rstrip("\n") for text in json.loads(printed)] == [saved_output(cell) for cell in cells]
