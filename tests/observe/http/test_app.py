"""The paths of the side port, without a server round them."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from aiopg.observe.http import _app
from aiopg.observe.http._access import Access
from aiopg.observe.http._app import make_app
from aiopg.observe.http._feed import Feed
from aiopg.stores.base import Excerpt


class Still:
    """A store that is stopped: it is there, and answers nothing."""

    spent = 0.0

    async def status(self) -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def trace(self, after: int, most: int) -> Excerpt:
        await anyio.sleep_forever()
        raise AssertionError


async def test_a_store_that_stands_still_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks hears so, and does not wait for as long as that lasts; that the side port is there is said."""
    monkeypatch.setattr(_app, "ANSWER_SECONDS", 0.05)
    transport = httpx.ASGITransport(make_app(Feed(Still(), "aiopg://127.0.0.1:1"), Access()))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        for path in ("/readyz", "/api/status", "/metrics", "/api/trace"):
            assert (await http.get(path)).status_code == 503, path
        assert (await http.get("/healthz")).status_code == 200
