"""Running the checks, each by itself."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Collection
from pathlib import Path

from aiopg.stores.base import Capabilities
from aiopg.testing.conformance._checks import Check, NotAskedError, chosen
from aiopg.testing.conformance._ground import Ground, Opener
from aiopg.testing.conformance._report import CheckResult, StoreReport, Verdict

__all__ = ["check_store"]

STUBBORN_SECONDS = 5.0
"""How long a check that was cancelled at its deadline may take to end."""


async def check_store(
    open_link: Opener, *, only: Collection[str] | None = None, patience: float = 30.0, late: float = 0.1
) -> StoreReport:
    """Check that a store keeps the promises of `aiopg.stores.base` and `aiopg.stores.keys`.

    ::

        report = await check_store(lambda: open_link("aiopg://127.0.0.1:29400"))
        report.raise_failed()

    The checks run one after another, each on links of its own, with names of groups and prefixes of keys that nobody
    else has: other programs may use the store meanwhile. What fails does not stop the others, and leaves no task, link
    or member behind. What the store does not offer is not asked, and listed as such: keys where its `capabilities` say
    that it has none, and takeover, enlist and reform where those verbs raise `NotImplementedError`.

    Cancelling it closes what the check that runs has opened.

    Args:
        open_link: gives a new link to the store each time; the links are closed here. As a link belongs to one process,
            two of them must see each other as two processes do.
        only: names of checks ("messages.fifo"), or of kinds of checks ("messages"); all if not given.
        patience: seconds that one check may take; over 0.
        late: seconds that a call may end past its deadline; 0.1 is what aiopg promises, on a host that is not busy.

    Returns:
        The report. It raises nothing for a store that breaks rules: see `StoreReport.raise_failed`.

    Raises:
        ValueError: there is no check of that name; patience or late is not over 0.
        Exception: whatever `open_link` raises when the first link is opened.
    """
    checks = chosen(only)
    for name, value in (("patience", patience), ("late", late)):
        if not value > 0:
            raise ValueError(f"{name} must be over 0 seconds, not {value!r}")
    link = await open_link()
    try:
        url, capabilities = link.url, link.capabilities
    finally:
        await link.close()
    results = [await _ask(check, open_link, capabilities, patience, late) for check in checks]
    return StoreReport(url=url, capabilities=capabilities, results=tuple(results))


async def _ask(
    check: Check, open_link: Opener, capabilities: Capabilities, patience: float, late: float
) -> CheckResult:
    """One check, if the store offers what it is about."""
    if check.keys and not capabilities.keys:
        return _result(check, Verdict.NOT_ASKED, "the store has no keys (Capabilities.keys)")
    loop = asyncio.get_running_loop()
    began = loop.time()
    ground = Ground(open_link, late=late)
    task = asyncio.ensure_future(check.run(ground))
    try:
        result = await _watch(check, task, patience)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=STUBBORN_SECONDS)  # it may be opening a link
        troubles = await ground.close()
    verdict, reason = result.verdict, result.reason
    if troubles:
        verdict, reason = Verdict.FAILED, "; ".join([reason, *troubles] if reason else troubles)
    return _result(check, verdict, reason, result.traceback, loop.time() - began)


async def _watch(check: Check, task: asyncio.Future[None], patience: float) -> CheckResult:
    """What the check comes to, by its deadline."""
    await asyncio.wait([task], timeout=patience)
    if not task.done():
        place, where = _where(task)
        task.cancel()
        await asyncio.wait([task], timeout=STUBBORN_SECONDS)
        stubborn = "" if task.done() else " and not when it was cancelled then"
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: what it came to so late is told by nobody
        told = f"it did not end within {patience:g} s{stubborn}; it waits at {place}"
        return _result(check, Verdict.FAILED, told, where)
    if task.cancelled():
        return _result(check, Verdict.FAILED, "a call of the store raised CancelledError, and nobody had cancelled it")
    error = task.exception()
    if error is None:
        return _result(check, Verdict.PASSED)
    if isinstance(error, NotAskedError):
        return _result(check, Verdict.NOT_ASKED, str(error))
    if check.optional and isinstance(error, NotImplementedError):
        return _result(check, Verdict.NOT_ASKED, f"the store does not offer {check.optional} (NotImplementedError)")
    if not isinstance(error, Exception):
        raise error
    told = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return _result(check, Verdict.FAILED, told, "".join(traceback.format_exception(error)))


def _where(task: asyncio.Future[None]) -> tuple[str, str]:
    """The line at which a check waits that does not end, in short and as a traceback."""
    for frame in task.get_stack() if isinstance(task, asyncio.Task) else []:
        (line,) = traceback.extract_stack(frame, 1)
        place = f"{Path(line.filename).name}:{line.lineno}: {line.line}"
        return place, "".join(traceback.format_list([line]))
    return "an unknown place", ""


def _result(check: Check, verdict: Verdict, reason: str = "", where: str = "", seconds: float = 0.0) -> CheckResult:
    return CheckResult(
        name=check.name, rule=check.rule, verdict=verdict, reason=reason, traceback=where, seconds=seconds
    )
