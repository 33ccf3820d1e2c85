"""Run the cells of a notebook as IPython does, and print what each one printed, as JSON: `python cells.py FILE PORT`.

That is: all in one namespace and in one event loop that runs on between them, each compiled with top-level await, and
the value of a last expression is shown.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


async def run_cell(source: str, namespace: dict[str, Any]) -> str:
    """What it prints."""
    *body, last = ast.parse(source).body
    printed = io.StringIO()
    with redirect_stdout(printed):
        for tree, mode in ((ast.Module(body, []), "exec"), (ast.Interactive([last]), "single")):
            code = compile(tree, "<cell>", mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, namespace)
            if inspect.isawaitable(running):
                await running
    return printed.getvalue()


async def main(notebook: str) -> None:
    """All cells, in their order."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]
    print(json.dumps([await run_cell("".join(cell["source"]), namespace) for cell in cells]))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_text().replace("29400", sys.argv[2])))
