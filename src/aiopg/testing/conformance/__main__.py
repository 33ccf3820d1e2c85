"""`python -m aiopg.testing.conformance URL`: check a store, print the report. Exits with 0 if no rule is broken."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from aiopg.errors import StoreError
from aiopg.stores import StoreLink, open_link
from aiopg.testing.conformance import check_store
from aiopg.testing.conformance._checks import all_checks

KNOWN = "aiopg://host:port, unix:///path, redis://host:port, etcd://host:port or memory://name"

BAD_STORE = 2
"""Exit code where there is no store to check; argparse uses it for other bad arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        for check in all_checks():
            print(f"{check.name}: {check.rule}")
        return 0
    if options.url is None:
        print(f"say which store to check: {KNOWN}", file=sys.stderr)
        return BAD_STORE

    async def opener() -> StoreLink:
        return await open_link(options.url, timeout=options.patience)

    only = options.only or None
    try:
        report = asyncio.run(check_store(opener, only=only, patience=options.patience, late=options.late))
    except (ValueError, StoreError) as error:
        print(error, file=sys.stderr)
        return BAD_STORE
    print(report)
    return 0 if report.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiopg.testing.conformance",
        allow_abbrev=False,
        description="Check that a store keeps what aiopg promises. Groups and keys get names that nobody else has. The "
        "token and TLS are those of AIOPG_TOKEN, AIOPG_TLS_CA, AIOPG_TLS_CERT and AIOPG_TLS_KEY.",
    )
    parser.add_argument("url", nargs="?", help=f"the store: {KNOWN}")
    parser.add_argument("--list", action="store_true", help="print the checks and their rules, and check nothing")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this check or kind of checks only; may be given again"
    )
    parser.add_argument(
        "--patience", type=float, default=30.0, metavar="SECONDS", help="what one check may take (%(default)s)"
    )
    parser.add_argument(
        "--late", type=float, default=0.1, metavar="SECONDS", help="what a call may end past its deadline (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
