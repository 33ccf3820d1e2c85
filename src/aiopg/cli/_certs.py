"""`aiopg certs`: certificates to try TLS with."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "write_certificates"]

BAD_ARGUMENT = 2

NAMES = ("localhost", "127.0.0.1", "::1")


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "certs",
        allow_abbrev=False,
        help="make certificates to try TLS with",
        description="Make an authority for tests, a certificate for a store and one for a member: ca.pem, store.pem, "
        "store.key, member.pem, member.key in DIR. The authority's own key is not kept.",
    )
    parser.add_argument("directory", metavar="DIR", help="where to; made if it is not there")
    parser.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="host name or IP address of the store, as members "
        "say it; can be given several times (always in it: localhost, 127.0.0.1, ::1)",
    )  # fmt: skip
    parser.set_defaults(command=certs)


async def certs(options: argparse.Namespace) -> int:
    """Make them; returns the exit code."""
    try:
        write_certificates(Path(options.directory), options.name)
    except ImportError:
        print("aiopg certs: this needs the package cryptography: pip install 'aiopg-group[certs]'", file=sys.stderr)
        return BAD_ARGUMENT
    except (OSError, ValueError) as error:
        print(f"aiopg certs: {error}", file=sys.stderr)
        return BAD_ARGUMENT
    directory = Path(options.directory)
    print(f"aiopg serve --tls-cert {directory}/store.pem --tls-key {directory}/store.key --tls-ca {directory}/ca.pem")
    print(f"AIOPG_TLS_CERT={directory}/member.pem AIOPG_TLS_KEY={directory}/member.key AIOPG_TLS_CA={directory}/ca.pem")
    return 0


def write_certificates(directory: Path, names: list[str]) -> None:
    """Write them all; keys can be read by their owner alone.

    Raises `FileExistsError` before anything is changed if one of the files is there, `ValueError` for a name that is
    none, `ImportError` without `cryptography`.
    """
    from aiopg.cli._authority import Authority  # here, because it is an extra

    authority = Authority()
    store = authority.issue("store", list(dict.fromkeys([*names, *NAMES])))
    member = authority.issue("member")
    files = {
        "ca.pem": authority.cert, "store.pem": store.cert, "store.key": store.key,
        "member.pem": member.cert, "member.key": member.key,
    }  # fmt: skip
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in files:
        if (directory / name).exists():
            raise FileExistsError(f"{directory / name} is there already; nothing was changed")
    for name, data in files.items():
        mode = 0o600 if name.endswith(".key") else 0o644
        with open(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
