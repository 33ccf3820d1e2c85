"""`aiopg trace`: what happened in a store, as a file that Perfetto and chrome://tracing open."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from aiopg.cli._reach import add_reach_options, at_store, seconds
from aiopg.observe.chrome import chrome_trace
from aiopg.stores import StoreLink
from aiopg.stores.base import HAPPENINGS_READ, Excerpt, Happening

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser"]

NO_TRACE = 1
"""Exit code for a store that keeps no trace, or has seen nothing."""

POLL_SECONDS = 0.25
"""How often a store is asked for more while it is followed; at once where there was as much as it tells."""

HAPPENINGS_HELD = 1_000_000
"""About 300 MB here and as much in the file: of a store that is followed for longer, the last ones."""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "trace",
        allow_abbrev=False,
        help="write what happened in a store as a trace that Perfetto opens",
        description="Write the last happenings of a store, and with --seconds the next ones too, as Chrome trace "
        "events: open the file at ui.perfetto.dev or chrome://tracing. Every rank is a row and every call a slice; an "
        "arrow runs from the last arrival to the others. The exit code is 1 if there is nothing to show, 2 if the "
        "store cannot be reached.",
    )
    add_reach_options(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there, and not to standard output")
    parser.add_argument("--group", default="", metavar="NAME", help="of this group alone")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="go on for so long, or until SIGINT")
    parser.set_defaults(command=trace)


async def trace(options: argparse.Namespace) -> int:
    """Write it; returns the exit code."""
    return await at_store("aiopg trace", options, lambda link: _trace(link, options))


async def _trace(link: StoreLink, options: argparse.Namespace) -> int:
    listener = _Listener(link, options.group, options.timeout)
    try:
        excerpt = await _listen(listener, options.seconds or 0.0)
    except NotImplementedError as error:
        print(f"aiopg trace: {options.url}: {error}", file=sys.stderr)
        return NO_TRACE
    async with asyncio.timeout(options.timeout):
        status = await link.status()
    if not listener.happenings:
        print(
            f"aiopg trace: {options.url} has seen nothing{' of that group' if options.group else ''}", file=sys.stderr
        )
        return NO_TRACE
    if listener.missed:
        print(f"aiopg trace: {listener.missed} happenings were gone before they could be read", file=sys.stderr)
    drawn = chrome_trace(listener.happenings, now=excerpt.now, epoch=excerpt.epoch, status=status)
    text = json.dumps(drawn, separators=(",", ":"), allow_nan=False)
    if options.output is None:
        print(text)
    else:
        Path(options.output).write_text(text + "\n")  # noqa: ASYNC240 (nothing else runs on this loop)
    return 0


async def _listen(listener: _Listener, seconds: float) -> Excerpt:
    """The same until a signal comes: what was heard by then is not to be lost."""
    if not seconds:
        return await listener.listen(0.0)
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

            async def wait_for_a_signal() -> None:
                async for _ in signals:
                    listener.stopped.set()

            tasks.start_soon(wait_for_a_signal)
            excerpt = await listener.listen(seconds)
            tasks.cancel_scope.cancel()
    return excerpt


class _Listener:
    """Reads what a store tells, from the oldest that it still knows on."""

    def __init__(self, link: StoreLink, group: str, timeout: float) -> None:
        self._link = link
        self._group = group
        self._timeout = timeout
        self._after = 0
        self.stopped = asyncio.Event()
        """To be set by whoever wants no more."""
        self.happenings: list[Happening] = []
        self.missed = 0
        """Happenings that the store forgot between two reads, of whatever group."""

    async def listen(self, seconds: float) -> Excerpt:
        """All that there is, and what comes within that time of the store's clock; the last of what was read."""
        until: float | None = None
        while True:
            excerpt, is_all = await self._read()
            until = excerpt.now + seconds if until is None else until
            is_late = self.stopped.is_set() or excerpt.now >= until
            if is_late and (is_all or (excerpt.happenings and excerpt.happenings[-1].at >= until)):
                return excerpt
            if is_all:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(POLL_SECONDS, until - excerpt.now)):
                        await self.stopped.wait()

    async def _read(self) -> tuple[Excerpt, bool]:
        """The next part, and whether there was no more."""
        async with asyncio.timeout(self._timeout):
            excerpt = await self._link.trace(self._after, HAPPENINGS_READ, self._group)
        if self._after:
            self.missed += max(excerpt.oldest - self._after - 1, 0)
        is_all = excerpt.next - self._after < HAPPENINGS_READ
        self._after = excerpt.next
        self.happenings += excerpt.happenings
        del self.happenings[:-HAPPENINGS_HELD]
        return excerpt, is_all
