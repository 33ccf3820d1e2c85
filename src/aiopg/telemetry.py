"""OpenTelemetry: a span for each call of a group or a store, and a histogram of how long calls take.

Nothing is to be switched on. A group or store that is made when the program has given OpenTelemetry a tracer provider
makes spans, one that is made when it has a meter provider measures; else there is neither, and calls cost nothing more.
Nothing of OpenTelemetry is imported here: who has set it up has imported it.

Spans are called `aiopg.barrier`, `aiopg.send` and so on, are children of the caller's current span (through a blocking
group too), and have the attributes `aiopg.op`, `aiopg.group`, `aiopg.rank`, `aiopg.world_size`, `aiopg.tag` and
`aiopg.seq`. A call that fails has the status ERROR, its error as an event, and `error.type`; if the error names ranks,
`aiopg.missing`, `aiopg.arrived` or `aiopg.ranks` too. A call that was cancelled has `error.type` alone.

Calls on keys are called `aiopg.store.set` and so on, and have `aiopg.keys`, how many they are about, and of a group's
private keys `aiopg.group` and `aiopg.rank`. What keys hold is in none, their names are in texts of errors only.

The histogram `aiopg.call.duration` counts seconds by `aiopg.op` and `error.type`; groups, tags and ranks are in no
attribute of it, so it stays as small as it is.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiopg._core.recorder import BOUNDS
from aiopg.errors import AiopgError

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram
    from opentelemetry.trace import Span, Tracer

__all__ = ["DURATION", "Observed", "Telemetry", "find_telemetry"]

SCOPE = "aiopg"
"""Name of the instrumentation scope."""

DURATION = "aiopg.call.duration"

RANKS_LISTED = 32
"""Of ranks that an error names, as many are in a span: all ranks of a group time out at once."""


class Telemetry:
    """What calls are told to."""

    def __init__(self, tracer: Tracer | None, durations: Histogram | None) -> None:
        self._tracer = tracer
        self._durations = durations

    def begin(self, op: str, **attributes: str | int) -> Observed:
        """A call begins here, in the caller's context; the attributes are those of its span, without `aiopg.`."""
        span = None
        if self._tracer is not None:
            span = self._tracer.start_span(
                f"aiopg.{op}",
                kind=sys.modules["opentelemetry.trace"].SpanKind.CLIENT,
                attributes={"aiopg.op": op, **_named(attributes)},
                record_exception=False,
                set_status_on_exception=False,
            )
        return Observed(op, span, self._durations)


class Observed:
    """A call under way that is told of."""

    __slots__ = ("_began", "_durations", "_op", "_span")

    def __init__(self, op: str, span: Span | None, durations: Histogram | None) -> None:
        self._op = op
        self._span = span
        self._durations = durations
        self._began = time.perf_counter()

    def end(self, error: BaseException | None, **attributes: str | int) -> None:
        """It is over; `error` is what it came to, if it failed; the attributes are as for `begin`."""
        span = self._span
        failed = {} if error is None else {"error.type": type(error).__qualname__}
        if self._durations is not None:
            self._durations.record(time.perf_counter() - self._began, {"aiopg.op": self._op, **failed})
        if span is None:
            return
        span.set_attributes({**_named(attributes), **failed})
        if error is not None:
            span.set_attributes(_ranks(error))
            if not isinstance(error, asyncio.CancelledError):
                span.record_exception(error)
                span.set_status(sys.modules["opentelemetry.trace"].StatusCode.ERROR, str(error))
        span.end()


def _named(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    return {f"aiopg.{name}": value for name, value in attributes.items()}


def find_telemetry() -> Telemetry | None:
    """To whom calls are to be told that are made from here on; None if the program has set up nobody."""
    trace, metrics = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.metrics")
    if trace is None and metrics is None:
        return None
    tracers = _provider(trace, "get_tracer_provider")
    meters = _provider(metrics, "get_meter_provider")
    if tracers is None and meters is None:
        return None
    return Telemetry(
        tracers.get_tracer(SCOPE) if tracers is not None else None, _histogram(meters) if meters is not None else None
    )


def _provider(api: Any, getter: str) -> Any:
    """The program's provider; None where there is only that which the API itself has, and which does nothing."""
    if api is None or not hasattr(api, getter):  # it is just being imported
        return None
    provider = getattr(api, getter)()
    return None if type(provider).__module__.startswith(api.__name__) else provider


_histograms: dict[int, tuple[Any, Histogram]] = {}
"""By the provider's id, with the provider that it is of: to make one twice is a mistake to OpenTelemetry."""


def _histogram(meters: Any) -> Histogram:
    known = _histograms.get(id(meters))
    if known is None:
        made = meters.get_meter(SCOPE).create_histogram(
            DURATION,
            unit="s",
            description="How long calls of groups and stores take",
            explicit_bucket_boundaries_advisory=BOUNDS,
        )
        known = _histograms[id(meters)] = meters, made
    return known[1]


def _ranks(error: BaseException) -> dict[str, Sequence[int]]:
    """The ranks that an error names."""
    if not isinstance(error, AiopgError):
        return {}
    said = {name: getattr(error, name, None) for name in ("missing", "arrived", "ranks")}
    return {
        f"aiopg.{name}": list(ranks)[:RANKS_LISTED] for name, ranks in said.items() if isinstance(ranks, tuple | list)
    }
