"""Log records carry what they say as fields, for programs that read logs."""

from __future__ import annotations

import ast
import asyncio
import logging
from pathlib import Path

import pytest

import aiopg
from aiopg import AsyncStatelessGroup
from aiopg.stores import _calls

LEVELS = {"info", "warning", "error", "exception", "critical"}
SOURCE = Path(aiopg.__file__).parent


def unstructured(path: Path) -> list[str]:
    """The calls of a module's logger without extra=, but those that have nothing to say beside their text."""
    return [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "logger"
        and node.func.attr in LEVELS
        and len(node.args) > 1
        and not any(keyword.arg == "extra" for keyword in node.keywords)
    ]


def test_every_record_has_its_values_as_fields() -> None:
    """Whatever is put into the text of a record is to be had without taking the text apart (but of aiopg.testing)."""
    modules = [path for path in SOURCE.rglob("*.py") if SOURCE / "testing" not in path.parents]
    assert [where for path in modules for where in unstructured(path)] == []


async def test_a_call_that_waits_for_long_says_who_is_missing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """op, group, rank, tag, seq, elapsed, arrived and missing are fields of the warning."""
    monkeypatch.setattr(_calls, "WARN_SECONDS", 0.05)
    url = "memory://warned"
    first, second = await asyncio.gather(
        *(AsyncStatelessGroup.connect(url, rank=rank, world_size=2, group="crew") for rank in range(2))
    )
    with caplog.at_level(logging.WARNING, "aiopg.group"):
        barrier = asyncio.create_task(first.barrier(30, tag="t"))
        async with asyncio.timeout(20):
            while not caplog.records:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
        await second.barrier(tag="t")
        await barrier
    fields = vars(caplog.records[0])
    assert [fields[name] for name in ("op", "group", "rank", "tag", "seq")] == ["barrier", "crew", 0, "t", 1]
    assert (list(fields["arrived"]), list(fields["missing"])) == ([0], [1])
    assert fields["elapsed"] >= 0.04
    await first.close()
    await second.close()
