"""`aiopg top`: a store, live, on a terminal."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from aiopg.cli._reach import UNREACHABLE, add_reach_options, at_store, seconds
from aiopg.cli._status import FINE, HOPELESS
from aiopg.observe.picture import Picture
from aiopg.observe.reader import Reader
from aiopg.observe.words import duration
from aiopg.stores import StoreLink

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from rich.console import Console, RenderableType

__all__ = ["add_parser"]

LEAST_INTERVAL = 0.5

SILENT_SECONDS = 2.0
"""A store that has not answered for so long is said not to."""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "top",
        allow_abbrev=False,
        help="watch a store: groups, rates, who waits for whom",
        description="Show the groups of a store, live: what waits for whom and for how long, how many rounds and "
        "messages a second, who comes late. Of ranks, o is there, ? awaited, ~ away, . absent, x lost, - left. "
        "Press q to end. Exit codes are those of aiopg status.",
    )
    add_reach_options(parser)
    parser.add_argument(
        "--interval", type=interval, default=LEAST_INTERVAL, metavar="SECONDS",
        help="between two looks at the store, at least %(default)s (the default)",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="look twice, print one picture and end, for scripts")
    parser.set_defaults(command=top)


def interval(text: str) -> float:
    """A time that is not too short, for argparse."""
    if (number := seconds(text)) < LEAST_INTERVAL:
        raise argparse.ArgumentTypeError(
            f"must be {LEAST_INTERVAL} seconds or more, not {text!r}: looking costs a store"
        )
    return number


async def top(options: argparse.Namespace) -> int:
    """Show it; returns the exit code."""
    try:
        from rich.console import Console  # here, because it is an extra
    except ImportError:
        print("aiopg top: this needs the package rich: pip install 'aiopg-group[top]'", file=sys.stderr)
        return UNREACHABLE
    console = Console(highlight=False)
    if not options.once and not (sys.stdin.isatty() and console.is_terminal):
        print("aiopg top: this is for a terminal; --once prints one picture to whatever it is", file=sys.stderr)
        return UNREACHABLE

    async def show(link: StoreLink) -> int:
        if options.once:
            return await _print_once(options, link, console)
        return await _Top(options, link, console).run()

    return await at_store("aiopg top", options, show)


async def _print_once(options: argparse.Namespace, link: StoreLink, console: Console) -> int:
    from aiopg.observe.screen import screen

    reader = Reader(link)
    async with asyncio.timeout(options.timeout + options.interval):
        await reader.refresh()
        await asyncio.sleep(options.interval)
        picture = await reader.refresh()  # rates need two looks
    for line in screen(options.url, picture, console.width, 10_000):
        console.print(line, soft_wrap=True)
    return HOPELESS if picture.hopeless else FINE


class _Top:
    """The screen, and what is on it."""

    def __init__(self, options: argparse.Namespace, link: StoreLink, console: Console) -> None:
        self._url: str = options.url
        self._interval: float = options.interval
        self._reader = Reader(link)
        self._console = console
        self._picture = Picture(store={}, groups=())
        self._answered = asyncio.get_running_loop().time()
        self._news = asyncio.Event()
        """There is something to draw, or a key was pressed."""
        self._is_over = False

    async def run(self) -> int:
        """Until q is pressed. Raises what `Reader.refresh` does."""
        from rich.live import Live

        with self._keys(), Live(console=self._console, screen=True, auto_refresh=False) as live:
            looking = asyncio.create_task(self._look())
            looking.add_done_callback(lambda _: self._news.set())
            try:
                while not (self._is_over or looking.done()):
                    live.update(self._draw(), refresh=True)
                    self._news.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LEAST_INTERVAL):
                            await self._news.wait()
            finally:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking
        return HOPELESS if self._picture.hopeless else FINE

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._picture = await self._reader.refresh()
            self._answered = loop.time()
            self._news.set()
            await asyncio.sleep(began + self._interval - loop.time())

    def _draw(self) -> RenderableType:
        from rich.console import Group

        from aiopg.observe.screen import screen

        silent = asyncio.get_running_loop().time() - self._answered
        note = f" no answer for {duration(silent)} " if silent > SILENT_SECONDS + self._interval else ""
        return Group(*screen(self._url, self._picture, self._console.width, self._console.height, note=note))

    @contextmanager
    def _keys(self) -> Iterator[None]:
        """Hear each key as it is pressed, and show none. Ctrl-C still ends the program."""
        loop = asyncio.get_running_loop()
        # Opened anew, as uvloop has what it reads from not block: the shell's own would stay so when we are gone.
        fd = os.open(os.ttyname(sys.stdin.fileno()), os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            before = termios.tcgetattr(fd)
            tty.setcbreak(fd)
            loop.add_reader(fd, self._key_pressed, fd)
            try:
                yield
            finally:
                loop.remove_reader(fd)
                termios.tcsetattr(fd, termios.TCSADRAIN, before)
        finally:
            os.close(fd)

    def _key_pressed(self, fd: int) -> None:
        try:
            keys = os.read(fd, 64)
        except OSError:
            keys = b""  # the terminal is gone
        if not keys or b"q" in keys.lower():
            self._is_over = True
        self._news.set()
