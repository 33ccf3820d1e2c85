"""How the commands that look at a store come to it: its URL, a token, TLS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable

from aiopg.errors import AuthenticationError, GroupClosedError, StoreLostError, StoreUnreachableError, UsageError
from aiopg.observe.plain import plain
from aiopg.stores import StoreLink, open_link
from aiopg.tls import Encryption, Tls
from aiopg.tokens import read_tokens

__all__ = ["UNREACHABLE", "add_reach_options", "at_store", "check_url", "encryption", "seconds", "token"]

UNREACHABLE = 2
"""Exit code where the store cannot be reached, or an argument is wrong."""


def add_reach_options(parser: argparse.ArgumentParser) -> None:
    """The URL, and what is needed to come in."""
    parser.add_argument("url", metavar="URL", help="the store: aiopg://host:port, unix:///path and so on")
    parser.add_argument(
        "--token-file", metavar="FILE", help="log in with the first token of this file; else with that of AIOPG_TOKEN"
    )
    parser.add_argument("--tls-ca", metavar="FILE", help="TLS, and the authority that is believed (PEM)")
    parser.add_argument("--tls-cert", metavar="FILE", help="our own certificate, where the store asks for one (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key (PEM)")
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="SECONDS", help="how long the store may take (%(default)s)"
    )


def check_url(url: str) -> None:
    """Raises `ValueError` for a store that nobody can look at from here."""
    if url.startswith("memory:"):
        raise ValueError(f"{url} is within another process, where only that one can look")


def seconds(text: str) -> float:
    """A time over 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be seconds, over 0, not {text!r}")
    return number


def token(options: argparse.Namespace) -> str | None:
    """The token to log in with; None: that of the environment. Raises as `read_tokens` does."""
    return None if options.token_file is None else read_tokens(options.token_file)[0].secret


def encryption(options: argparse.Namespace) -> Encryption | None:
    """TLS; None: what the environment says. Raises `ValueError`."""
    if not any((options.tls_cert, options.tls_key, options.tls_ca)):
        return None
    return Tls(options.tls_cert, options.tls_key, options.tls_ca)


async def at_store(name: str, options: argparse.Namespace, work: Callable[[StoreLink], Awaitable[int]]) -> int:
    """Do this with a link to the store of these options; its exit code, or `UNREACHABLE` and a line that says why.

    `work` has no deadline of its own here.
    """
    try:
        check_url(options.url)
        link = await open_link(options.url, timeout=options.timeout, token=token(options), ssl=encryption(options))
        try:
            return await work(link)
        finally:
            await link.close()
    except (AuthenticationError, StoreUnreachableError, StoreLostError, GroupClosedError) as error:
        why = str(error)
    except TimeoutError:
        why = f"{options.url} did not answer within {options.timeout:g} s"
    except (ValueError, UsageError, OSError, ImportError) as error:  # the last: what that kind of store takes
        why = str(error)
    print(f"{name}: {plain(why)}", file=sys.stderr)  # part of it may be what whoever serves there said
    return UNREACHABLE
