"""An event loop in virtual time: what asyncio's own loop does, without a socket, a sleep or a thread.

Theory of operation. The ready queue is asyncio's: first in, first out; what a pass schedules runs in the next pass.
Timers run by (when, order of creation). When nothing is ready the clock jumps to the next timer, so an hour of
waiting costs nothing, and a program that computes and waits on nothing but this loop always runs the same way:

- The clock moves only between passes; all of a pass happens at one time.
- A task hashes by its number and not by its address, so that sets of tasks (`asyncio.TaskGroup` cancels what is in one)
  have the same order in every run. Tasks without a name are named by that number.
- Garbage is collected at fixed steps only: a collection can run code (an abandoned generator's `finally`).

What can still differ between runs is the program's own: sets of other objects (anyio cancels the tasks of a group in
the order of a set of scopes) and, between processes, of text; `secrets`, `id`, `time`, the process id.

A run that cannot go on says so: `Deadlock` where nothing will ever happen again, `Runaway` past a limit. Both name what
waits, and where. Errors that asyncio would only log are collected in `failures`.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import os
import sys
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, NoReturn, TypeVar, TypeVarTuple, Unpack

__all__ = ["Deadlock", "Failure", "Runaway", "SimLoop", "Stuck"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

COLLECT_STEPS = 50_000
"""Garbage is collected each time that about as many steps were made."""

CLOSE_STEPS = 100_000
CLOSE_SECONDS = 3600.0
"""How long what is cancelled by close() may go on."""

FEWEST = 64
"""Lists of weak references and of timers are not tidied up below this length."""


class Stuck(Exception):
    """The run cannot go on.

    Attributes:
        waiting: the tasks that wait and where, in order of creation, as text.
    """

    def __init__(self, what: str, waiting: list[str]) -> None:
        super().__init__("\n  ".join((what, *(waiting or ["no task waits"]))))
        self.waiting = waiting


class Deadlock(Stuck):
    """Nothing is ready and no timer is left, and whoever runs the loop still waits."""


class Runaway(Stuck):
    """More steps or more virtual seconds than the run may take."""


class Failure(NamedTuple):
    """An error that nobody was there to catch."""

    at: float
    """Virtual time when it was reported."""
    message: str
    """What asyncio says happened, and to what."""
    exception: BaseException | None


class _Task(asyncio.Task[Any]):
    """A task with a number, which is its place in sets."""

    def __init__(self, loop: SimLoop, number: int, coro: Any, name: str, context: contextvars.Context | None) -> None:
        self.number = number  # first: Task's own constructor puts it into a set
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.BaseEventLoop):
    """The loop. `run` runs a coroutine on it; `asyncio.Runner(loop_factory=SimLoop)` does as well.

    While it runs, automatic garbage collection is off in the whole process.

    Args:
        start: what `time()` says at first, in seconds.
        max_steps: callbacks after which `Runaway` is raised.
        max_seconds: virtual seconds after which `Runaway` is raised.

    Attributes:
        steps: callbacks run so far.
        failures: unhandled exceptions in callbacks and in tasks that nobody awaited, tasks destroyed while they
            waited: all that comes to the loop's exception handler. One that was set is called too.
    """

    _running = False

    def __init__(self, start: float = 1000.0, *, max_steps: int = 5_000_000, max_seconds: float = 1e6) -> None:
        super().__init__()
        self.steps = 0
        self.failures: list[Failure] = []
        self._max_steps = max_steps
        self._end = start + max_seconds
        self._now = start
        self._queue: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._timers_cancelled = 0
        self._tasks: list[weakref.ref[_Task]] = []
        self._tasks_made = 0
        self._tidy_at = FEWEST
        self._generators: list[weakref.ref[AsyncGenerator[Any, Any]]] = []
        self._collect_at = COLLECT_STEPS
        self._stop_asked = False

    def __repr__(self) -> str:
        return f"<SimLoop time={self._now:.6f} steps={self.steps} ready={len(self._queue)} timers={len(self._timers)}>"

    # ------------------------------------------------------------------------------------------ running

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run it to its end and return its result; then collect garbage, so that `failures` is complete.

        Raises what it raises, `Deadlock`, `Runaway`. Other tasks stay as they are (`leftovers`) until `close`.
        """
        try:
            return self.run_until_complete(coro)
        finally:
            # The young generations hold all that was made since the last collection.
            gc.collect(1 if self.steps < COLLECT_STEPS else 2)

    def run_forever(self) -> None:
        """Run until stop() is called. Raises `Deadlock`, `Runaway`."""
        if self._running or asyncio._get_running_loop() is not None:
            raise RuntimeError("a loop runs already")
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        hooks, collecting = sys.get_asyncgen_hooks(), gc.isenabled()
        sys.set_asyncgen_hooks(firstiter=self._generator_begins, finalizer=self._generator_abandoned)
        gc.disable()
        asyncio._set_running_loop(self)
        self._running = True
        try:
            while True:
                self._pass()
                if self._stop_asked:
                    break
        finally:
            self._running = self._stop_asked = False
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            if collecting:
                gc.enable()

    def stop(self) -> None:
        """Stop after this pass."""
        self._stop_asked = True

    def is_running(self) -> bool:
        return self._running

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def close(self) -> None:
        """Cancel the tasks that are left, let them end in virtual time, and close. Not while it runs.

        A task that does not end is reported in `failures`.
        """
        if self._running:
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        self._max_steps = self.steps + CLOSE_STEPS
        self._end = self._now + CLOSE_SECONDS
        try:
            self.run(self._wind_up())
        except Stuck as error:
            self.call_exception_handler({"message": "close() waits for a task that was cancelled", "exception": error})
        super().close()
        self._queue.clear()
        self._timers.clear()

    async def _wind_up(self) -> None:
        tasks = [task for task in self.pending_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.shutdown_asyncgens()

    def _pass(self) -> None:
        queue, timers = self._queue, self._timers
        if not queue and not self._stop_asked:
            self._jump()
        while timers and timers[0][0] <= self._now:
            queue.append(heappop(timers)[2])
        todo = len(queue)
        self.steps += todo
        handle: asyncio.Handle | None = None
        for _ in range(todo):
            handle = queue.popleft()
            if not handle._cancelled:
                handle._run()
        handle = None  # an exception in `failures` keeps this frame, which must not keep a task from being destroyed
        if self.steps >= self._collect_at:
            self._collect_at = self.steps + COLLECT_STEPS
            gc.collect(1)
        if self.steps > self._max_steps:
            raise Runaway(f"more than {self._max_steps} steps, at {self._now:.6f}", self._waiting())

    def _jump(self) -> None:
        """Nothing is ready: move the clock to the next timer."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
        if not timers or timers[0][0] == math.inf:
            raise Deadlock(f"nothing will ever happen again, at {self._now:.6f}", self._waiting())
        if timers[0][0] > self._end:
            raise Runaway(f"no end by {self._end:.6f}", self._waiting())
        self._now = max(self._now, timers[0][0])

    # --------------------------------------------------------------------------------------- scheduling

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # Called by the handle. One that has run already is counted too: the list is tidied a little earlier.
        self._timers_cancelled += 1
        if self._timers_cancelled > FEWEST and 2 * self._timers_cancelled > len(self._timers):
            self._timers_cancelled = 0
            # In place, as a pass may be under way. This handle is marked only after this call.
            self._timers[:] = [entry for entry in self._timers if not (entry[2]._cancelled or entry[2] is handle)]
            heapify(self._timers)

    def create_task(
        self, coro: Any, *, name: object = None, context: contextvars.Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        self._tasks_made = number = self._tasks_made + 1
        task = _Task(self, number, coro, f"Task-{number}" if name is None else str(name), context)
        tasks = self._tasks
        tasks.append(weakref.ref(task))
        if len(tasks) > self._tidy_at:
            self._tasks = tasks = [ref for ref in tasks if (known := ref()) is not None and not known.done()]
            self._tidy_at = FEWEST + 2 * len(tasks)
        return task

    def run_in_executor(self, executor: object, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Run the function in a later step of this loop, in this thread; whatever executor is given."""

        async def execute() -> T:
            return func(*args)

        return self.create_task(execute(), name=f"executor of {getattr(func, '__qualname__', func)}")

    # ------------------------------------------------------------------------------ what is left, what failed

    def pending_tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, in order of creation."""
        return [task for ref in self._tasks if (task := ref()) is not None and not task.done()]

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """The timers that have neither run nor been cancelled, in the order in which they will run."""
        return [timer for _, _, timer in sorted(self._timers) if not timer.cancelled()]

    def leftovers(self) -> list[str]:
        """Tasks and timers that are pending, as text; empty after a run that tidied up behind itself."""
        timers = [f"timer in {t.when() - self._now:.6f} s: {_named(t)}" for t in self.pending_timers()]
        return [f"task {line}" for line in self._waiting()] + timers

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        about = [_named(context[key]) for key in ("handle", "task", "future", "asyncgen") if key in context]
        message = context.get("message") or "unhandled exception"
        self.failures.append(Failure(self._now, ": ".join((message, *about)), context.get("exception")))
        if self.get_exception_handler() is not None:
            super().call_exception_handler(context)

    def _waiting(self) -> list[str]:
        return [f"{task.get_name()}: {_where(task.get_coro())}" for task in self.pending_tasks()]

    # -------------------------------------------------------------------------------------- async generators

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators = [ref for ref in self._generators if ref() is not None]
        self._generators.append(weakref.ref(generator))

    def _generator_abandoned(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self.is_closed():
            self.call_soon(self.create_task, generator.aclose())

    async def shutdown_asyncgens(self) -> None:
        """Close the asynchronous generators that were begun and not ended, in the order of their beginning."""
        open_ones = [generator for ref in self._generators if (generator := ref()) is not None]
        self._generators.clear()
        results = await asyncio.gather(*(generator.aclose() for generator in open_ones), return_exceptions=True)
        for generator, result in zip(open_ones, results, strict=True):
            if isinstance(result, BaseException):
                message = "an asynchronous generator did not close"
                self.call_exception_handler({"message": message, "exception": result, "asyncgen": generator})


def _where(coro: Any) -> str:
    """The chain of coroutines down to the one that waits, each with its line."""
    steps: list[str] = []
    while coro is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(coro, f"{kind}_frame")), None)
        if kind is None:
            break
        frame = getattr(coro, f"{kind}_frame")
        line = f" ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})" if frame is not None else ""
        steps.append(f"{coro.__qualname__}{line}")
        coro = getattr(coro, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return " > ".join(steps) or repr(coro)


def _named(thing: Any) -> str:
    """What a handle, task, future or generator is, without its address where that can be."""
    if isinstance(thing, asyncio.Task):
        return f"{thing.get_name()}: {_where(thing.get_coro())}"
    if isinstance(thing, asyncio.Handle):
        callback = getattr(thing, "_callback", None)
        return str(getattr(callback, "__qualname__", callback))
    return str(getattr(thing, "__qualname__", type(thing).__name__))


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: SimLoop, *args: object, **options: object) -> NoReturn:
        raise NotImplementedError(f"a SimLoop has no sockets, no processes and no signals, and so no {name}()")

    return refuse


_UNSUPPORTED = (
    "getaddrinfo getnameinfo create_connection create_server create_unix_connection create_unix_server start_tls "
    "create_datagram_endpoint sendfile connect_accepted_socket connect_read_pipe connect_write_pipe "
    "subprocess_exec subprocess_shell add_reader remove_reader add_writer remove_writer "
    "sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept "
    "sock_sendfile add_signal_handler remove_signal_handler set_default_executor"
)
for _name in _UNSUPPORTED.split():
    setattr(SimLoop, _name, _refusing(_name))
