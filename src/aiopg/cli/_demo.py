"""`aiopg demo`: what a group does, shown by N real processes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

import anyio

from aiopg.cli._demo_check import STEPS, Step, table
from aiopg.cli._demo_rank import NOTE, Seen, stage_of
from aiopg.cli._run import BAD_ARGUMENT, count
from aiopg.cli._team import Team, rank_environment
from aiopg.cli._venue import Venue, add_store_option, venue
from aiopg.errors import AiopgError, AuthenticationError, StoreUnreachableError
from aiopg.group import AsyncStatelessGroup

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser"]

RANK_PROGRAM = "from aiopg.cli._demo_rank import main; main()"

LONGEST = 30.0
"""Seconds for each call of the narrator: many processes on a busy machine need a while to start."""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "demo",
        allow_abbrev=False,
        help="watch N processes form a group and exchange objects",
        description="Start N processes that form a group, exchange objects in five ways, and tell what they saw. "
        "Takes a few seconds; the exit code is 0 if every rank saw what it should.",
    )
    parser.add_argument("-n", type=several, default=4, metavar="N", help="how many processes, 2 or more (%(default)s)")
    add_store_option(parser)
    parser.set_defaults(command=demo)


def several(text: str) -> int:
    """A number of processes that can talk to each other, for argparse."""
    number = count(text)
    if number < 2:
        raise argparse.ArgumentTypeError("must be 2 or more: one alone has nobody to talk to")
    return number


async def demo(options: argparse.Namespace) -> int:
    """Show it; returns the exit code."""
    try:
        async with venue(options.store) as place:
            # At a store that others use too, another demo may be on.
            group = "demo" if options.store is None else f"demo-{os.getpid()}"
            return await show(place, options.n, group)
    except (AuthenticationError, StoreUnreachableError, ValueError, ImportError) as error:
        print(f"aiopg demo: {error}", file=sys.stderr)
        return BAD_ARGUMENT


async def show(place: Venue, n: int, group: str) -> int:
    """Show it at this store; returns the exit code."""
    started = time.monotonic()
    print(
        f"{n} processes form a group. They meet at the store {place.url}; that is all they are told.\n"
        "A line that begins with [1] comes from rank 1.",
        flush=True,
    )
    places = [rank_environment(place.url, rank, n, group) for rank in range(n)]
    team = Team("aiopg demo", [sys.executable, "-c", RANK_PROGRAM], places, place.on_end)
    narrator = Narrator(place.url, n, stage_of(group))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(narrator.narrate)
        code = await team.run()
        if code:
            tasks.cancel_scope.cancel()
    if code:
        return code
    return narrator.conclude(time.monotonic() - started)


class Narrator:
    """Tells what the ranks report, step by step. It is one more rank, of a group that overlaps theirs."""

    def __init__(self, url: str, n: int, stage: str) -> None:
        self._url = url
        self._n = n
        self._stage = stage
        self._reports: list[list[Seen]] = []
        self._error: AiopgError | None = None
        self._unheard: BrokenPipeError | None = None

    async def narrate(self) -> None:
        """Print every step as the ranks tell it. What goes wrong is kept for `conclude`."""
        try:
            async with await AsyncStatelessGroup.connect(
                self._url, rank=self._n, world_size=self._n + 1, group=self._stage, store_timeout=LONGEST
            ) as stage:
                for number, step in enumerate(STEPS, 1):
                    self._reports.append(await self._tell(stage, number, step))
        except AiopgError as error:
            self._error = error

    async def _tell(self, stage: AsyncStatelessGroup, number: int, step: Step) -> list[Seen]:
        self._say(f"\n{number}. {step.title}")
        if step.name == "straggler":
            for rank in range(self._n - 1):
                self._say(f"[{rank}] {await stage.recv(rank, tag=NOTE)}")
        reports = []
        for rank in range(self._n):
            reports.append(Seen(*await stage.recv(rank)))
            self._say(f"[{rank}] {reports[-1].says}")
        return reports

    def _say(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError as error:
            self._unheard = error  # the play goes on to its end: to break it off would only make the ranks complain

    def conclude(self, elapsed: float) -> int:
        """Print the table and the verdict; returns the exit code."""
        if self._unheard is not None:
            raise self._unheard
        if self._error is not None:
            print(f"aiopg demo: {self._error}", file=sys.stderr)
            return 1
        print(f"\nWhat each rank saw, and how long it took:\n\n{table(self._reports)}\n")
        faults = [
            f"rank {rank} saw the wrong thing in {step.name}: {reports[rank].saw!r}"
            for step, reports in zip(STEPS, self._reports, strict=True)
            for rank in step.faults([seen.saw for seen in reports])
        ]
        for fault in faults:
            print(f"aiopg demo: {fault}", file=sys.stderr)
        if not faults:
            print(f"Every rank saw what it should. {elapsed:.1f} s in all.")
        return 1 if faults else 0
