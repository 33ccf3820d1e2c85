"""The store itself: whether it lets us in, what it is, and how long an answer takes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiopg import __version__
from aiopg.cli.doctor._findings import Finding, fault, fine, note, warning
from aiopg.errors import AiopgError, AuthenticationError, StoreLostError, StoreUnreachableError
from aiopg.keys import AsyncStore
from aiopg.observe.words import duration, size
from aiopg.stores import StoreLink, open_link
from aiopg.tls import Encryption
from aiopg.tokens import member_token

__all__ = ["Patient", "look_at_store"]

ASKED = 50
"""Small requests, one behind the other, from which the time of an answer is told."""

SLOW_SECONDS = 0.005
"""A median over this is worth a word: at such a store everything waits."""

NEARLY_FULL = 0.8

PROBE = "aiopg-doctor"
"""A key that is asked for and never made."""

_ADVICE = (
    ("asks for a token", "give --token-file, or set AIOPG_TOKEN to what the store has"),
    ("asks for none", "unset AIOPG_TOKEN, or start the store with the same one"),
    ("refuses this member's token", "it is another one than the store's, or its time is over: compare them, blanks at "
     "their ends too"),
    ("does not prove", "this may not be your store: look who serves at that address"),
    ("certificate, or misses it", "give --tls-cert and --tls-key with a certificate of the authority that the store "
     "believes, for members"),
    ("refuses the store's certificate", "give --tls-ca with the authority of the store's certificate"),
    ("version", "install the same version of aiopg-group on both ends"),
    ("in time", "its process is stopped, or has no processor: look at it on its host"),
    ("before it said a word", "it is just ending, or no store of ours: look who listens there"),
)  # fmt: skip


@dataclass(slots=True)
class Patient:
    """Who is looked at, and how to come in."""

    url: str
    token: str | None
    tls: Encryption | None
    timeout: float
    pid: int = 0
    """Its process on its own host, once it has said so."""


async def look_at_store(patient: Patient) -> AsyncIterator[Finding]:
    """Findings; a link is opened, and closed."""
    try:
        link = await open_link(
            patient.url, timeout=patient.timeout, grace=1.0, token=patient.token, ssl=patient.tls
        )  # fmt: skip
    except (AuthenticationError, StoreUnreachableError) as error:
        yield fault("login" if isinstance(error, AuthenticationError) else "store", error.reason, _advice(error.reason))
        return
    except ImportError as error:
        yield fault("store", str(error), "install what it names")
        return
    try:
        yield _login(patient, link)
        async with asyncio.timeout(patient.timeout):
            status = await link.status()
        patient.pid = status["pid"] if isinstance(status.get("pid"), int) else 0  # type: ignore[assignment]
        for finding in (*_versions(status), *_fullness(status)):
            yield finding
        yield await _latency(link, patient.timeout)
    except TimeoutError:
        yield fault("store", f"it did not answer within {patient.timeout:g} s",
                    "its process is stopped or has no processor: look at it on its host")  # fmt: skip
    except StoreLostError as error:
        yield fault("store", f"the link ended: {error.reason}", "look at the store's own log")
    finally:
        await link.close()


def _advice(reason: str) -> str:
    return next((fix for sign, fix in _ADVICE if sign in reason), "look at the store's own log")


def _login(patient: Patient, link: StoreLink) -> Finding:
    engine = link.capabilities.engine
    if member_token(patient.token):
        return fine("login", f"the store ({engine}) and this end know the same token")
    if patient.url.startswith("unix:") or engine != "aiopg" or getattr(patient.tls, "cert", None) is not None:
        return fine("login", f"the store ({engine}) lets us in")
    if "//127." in patient.url or "//localhost" in patient.url or "//[::1]" in patient.url:
        return note("login", "the store asks for no token: every user of this host may join its groups")
    return warning("login", "the store asks for no token, and other hosts may reach it",
                   "make one (aiopg token) and give it to the store and its members as AIOPG_TOKEN")  # fmt: skip


def _versions(status: Mapping[str, Any]) -> Iterator[Finding]:
    theirs = status.get("version")
    if theirs is None:
        return
    if theirs == __version__:
        yield fine("version", f"both ends are aiopg {__version__}")
    else:
        yield note("version", f"the store is aiopg {theirs}, this end {__version__}: they understand each other")


def _fullness(status: Mapping[str, Any]) -> Iterator[Finding]:
    limits: Mapping[str, Any] = status.get("limits", {})
    held: dict[str, tuple[Any, Callable[[Any], str]]] = {
        "store_bytes": (status.get("bytes", 0), size), "groups": (len(status.get("groups", ())), str),
        "sessions": (status.get("sessions", 0), str),
    }  # fmt: skip
    is_said = False
    for name, (count, shown) in held.items():
        limit = limits.get(name)
        if limit and isinstance(count, int) and count >= NEARLY_FULL * limit:
            is_said = True
            yield warning("limits", f"{name}: {shown(count)} of {shown(limit)}",
                          f"past it calls are refused: find out who fills it (aiopg status), or serve with a larger "
                          f"{name}")  # fmt: skip
    if limits and not is_said:
        yield fine("limits", "far from full: " + ", ".join(
            f"{name} {shown(count)} of {shown(limits[name])}" for name, (count, shown) in held.items() if name in limits
        ))  # fmt: skip


async def _latency(link: StoreLink, timeout: float) -> Finding:
    """From asking to the answer, by this end's clock alone."""
    ask, what = await _question(link, timeout)
    times = []
    async with asyncio.timeout(timeout):
        for _ in range(ASKED):
            began = time.perf_counter()  # uvloop counts in milliseconds
            await ask()
            times.append(time.perf_counter() - began)
    median, longest = statistics.median(times), max(times)
    said = f"an answer takes {duration(median)} (median of {ASKED} {what}), {duration(longest)} at most"
    if median > SLOW_SECONDS:
        return warning(
            "latency",
            said,
            "if the hosts are near each other, the store has too little processor time, or the network is busy",
        )
    return fine("latency", said)


async def _question(link: StoreLink, timeout: float) -> tuple[Callable[[], Awaitable[object]], str]:
    """Something small to ask, and its name: whether a key is there; where we may not, the status."""
    if link.capabilities.keys:
        store = AsyncStore(link, timeout=timeout)
        try:
            await store.check(PROBE)
        except AiopgError:
            pass  # a token for some groups lets nobody at the store's own keys
        else:
            return lambda: store.check(PROBE), "questions for a key"
    return link.status, "questions for the status"
