"""`aiopg status`: what is in a store, and who waits for whom."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

from aiopg.cli._reach import add_reach_options, at_store
from aiopg.observe.picture import Picture
from aiopg.observe.plain import plain
from aiopg.observe.reader import Reader
from aiopg.observe.report import report
from aiopg.stores import StoreLink

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["FINE", "HOPELESS", "add_parser"]

FINE = 0
HOPELESS = 1
"""Exit codes; `UNREACHABLE` is another."""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "status",
        allow_abbrev=False,
        help="show what is in a store, and who waits for whom",
        description="Show the groups of a store, their members, the calls under way and whom they wait for. "
        "The exit code is 0; 1 if a call waits for a rank that is absent, away, left or lost; 2 if the store cannot be "
        "reached or an argument is wrong.",
    )
    add_reach_options(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object, for programs")
    parser.set_defaults(command=status)


async def status(options: argparse.Namespace) -> int:
    """Show it; returns the exit code."""

    async def show(link: StoreLink) -> int:
        async with asyncio.timeout(options.timeout):
            picture = await Reader(link).refresh()
        if options.json:
            print(json.dumps(_fields(options.url, picture, link.capabilities.fields()), indent=2, allow_nan=False))
        else:
            for line in report(options.url, picture, link.capabilities.fields()):
                print(plain(line))  # also what only the store itself says: it may be no store of ours
        return HOPELESS if picture.hopeless else FINE

    return await at_store("aiopg status", options, show)


def _fields(url: str, picture: Picture, capabilities: dict[str, object]) -> Any:
    hopeless = [
        {
            "group": group.name, "incarnation": group.incarnation, "op": round.op, "tag": round.tag,
            "number": round.number, "ranks": list(round.gone),
        }
        for group, round in picture.hopeless
    ]  # fmt: skip
    return _finite({"url": url, **picture.fields(), "capabilities": capabilities, "hopeless": hopeless})


def _finite(value: Any) -> Any:
    """The same, with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
