"""Links of pages to files of the repository that are no pages: on the site they lead to the project's own pages."""

from __future__ import annotations

import posixpath
import re
from typing import Any

FILES = "https://github.com/aiopg/aiopg/blob/main"


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Called by mkdocs with the text of each page."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def lead_out(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        return link[0] if path.startswith("docs/") else f"]({FILES}/{path}{link[2] or ''})"

    return re.sub(r"\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)", lead_out, markdown)
