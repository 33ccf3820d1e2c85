"""The command, and the order in which things are looked at: from here to the store, one step behind the other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiopg.address import Address
from aiopg.cli._reach import UNREACHABLE, add_reach_options, check_url, encryption, token
from aiopg.cli.doctor._findings import Finding, verdict
from aiopg.cli.doctor._host import look_at_host, look_at_store_process
from aiopg.cli.doctor._road import Road, look_at_road
from aiopg.cli.doctor._store import Patient, look_at_store
from aiopg.cli.doctor._tls import look_at_tls
from aiopg.errors import UsageError
from aiopg.tls import client_context

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser"]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "doctor",
        allow_abbrev=False,
        help="look for what is wrong between here and a store",
        description="Look at the name, the address, the road, TLS, the token, the time that an answer takes, limits of "
        "this host and versions, and say what to mend. On the store's own host it sees more. The exit code is 0 for "
        "nothing to mend, 1 for warnings, 2 for a fault (or a wrong argument).",
    )
    add_reach_options(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON array, for programs")
    parser.set_defaults(command=doctor)


async def doctor(options: argparse.Namespace) -> int:
    """Examine; returns the exit code."""
    findings = []
    try:
        async for finding in _examine(options):
            findings.append(finding)
            if not options.json:
                print(*finding.lines(), sep="\n", flush=True)
    except (ValueError, UsageError, OSError) as error:
        print(f"aiopg doctor: {error}", file=sys.stderr)
        return UNREACHABLE
    if options.json:
        print(json.dumps([finding.fields() for finding in findings], indent=2))
    return verdict(findings)


async def _examine(options: argparse.Namespace) -> AsyncIterator[Finding]:
    """All findings, as they are made. What cannot be looked at without the step before it is left out.

    Raises `ValueError`, `UsageError` or `OSError` for arguments that make no sense.
    """
    url: str = options.url
    check_url(url)
    address = Address.parse(url) if urlsplit(url).scheme in ("aiopg", "unix", "") else None
    patient = Patient(url, token(options), encryption(options), options.timeout)
    context = client_context(patient.tls)
    for finding in look_at_host():
        yield finding
    if address is not None:
        road = Road(address, options.timeout)
        async for finding in look_at_road(road):
            yield finding
        if not road.is_open:
            return
        async for finding in look_at_tls(address, context, options.timeout):
            yield finding
            if finding.level == "FAULT":
                return
    async for finding in look_at_store(patient):
        yield finding
    if address is not None and patient.pid:
        for finding in look_at_store_process(address, patient.pid):
            yield finding
