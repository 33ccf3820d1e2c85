"""A proxy between clients and a store that breaks what passes through it, on demand or by a seeded plan.

Theory of operation.

- Every connection that is accepted is carried on by one of its own to the target. As long as no fault is asked for,
  bytes pass in order and none is lost, an end of file or a reset at one end comes out at the other, and a reader that
  does not keep up slows its writer down: the proxy holds a megabyte each way at most.
- A fault is a plain call and takes hold before it returns. Faults that break (`cut`, `close_gently`, `half_close`,
  `blackhole`) strike the connections that live at that moment; those that last (`stall`, `fragment`, `delay`,
  `throttle`, `refuse`) hold for all connections, new ones too, until they are taken back.
- `faults` counts what was really struck, so that a test can assert that its faults happened.
- Chance comes from `seed` alone. The plan of `chaos` depends on nothing else; where it meets the traffic, and how a
  piece falls, depends on timing too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import secrets
import socket
from collections import Counter
from types import TracebackType
from typing import Literal, Self

from aiopg.address import Address
from aiopg.errors import GroupClosedError
from aiopg.server.listen import address_of, bind
from aiopg.testing._lane import Conditions
from aiopg.testing._relay import Relay, reset_socket
from aiopg.testing._spell import Spell

__all__ = ["FaultProxy"]

logger = logging.getLogger("aiopg.testing")

Direction = Literal["to_target", "to_client"]

ACCEPT_PAUSE = 0.1
"""Seconds until the proxy tries again to accept, when this process had no file descriptor left for it."""


class FaultProxy:
    """A proxy that injects faults, as an async context manager.

    ::

        async with StoreServer() as server, FaultProxy(server.address, seed=7) as proxy:
            group = await AsyncStatelessGroup.connect(proxy.address, rank=0, world_size=1)
            proxy.cut()

    It runs on the event loop that enters it, and its methods are called there. Leaving the block resets what is still
    connected and frees the address; no task and no socket is left.

    Args:
        target: URL of the store, `aiopg://host:port` or `unix:///path`. It is dialled anew for each connection; while
            nobody serves there, connections are reset.
        seed: of all that is random here; drawn when not given.
        listen: URL to listen on; a free TCP port on loopback when not given.

    Attributes:
        target: the target's `Address`.
        seed: the seed, also in the repr.
        accepted: connections accepted so far, without the refused ones.

    Raises `ValueError` for a URL that is none.
    """

    def __init__(self, target: str, *, seed: int | None = None, listen: str | None = None) -> None:
        self.target = Address.parse(target)
        self.seed = secrets.randbits(32) if seed is None else seed
        self.accepted = 0
        self._asked = Address("127.0.0.1") if listen is None else Address.parse(listen)
        self._bound: Address | None = None
        self._listener: socket.socket | None = None
        self._accept_again: asyncio.TimerHandle | None = None
        # The plan has a source of its own: how much traffic there is must not change it.
        self._chance = random.Random(self.seed)
        self._conditions = Conditions(random.Random(f"pieces {self.seed}"))
        self._relays: set[Relay] = set()
        self._refusing = False
        self._relay_gone = asyncio.Event()
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else str(self._bound) if self._bound else "not started"
        conditions = self._conditions
        faults = "".join(
            f" {text}"
            for text, holds in (
                ("stalled", conditions.stalled),
                ("refusing", self._refusing),
                (f"fragment={conditions.most}", conditions.most is not None),
                (f"delay={conditions.delay}", conditions.delay > 0),
                (f"throttle={conditions.rate}", conditions.rate is not None),
            )
            if holds
        )
        return (
            f"<FaultProxy {state} -> {self.target} seed={self.seed} "
            f"connections={self.connections} accepted={self.accepted}{faults}>"
        )

    @property
    def address(self) -> str:
        """URL to connect to instead of the target's, once started."""
        if self._bound is None:
            raise GroupClosedError("the proxy has no address before it is started")
        return str(self._bound)

    @property
    def connections(self) -> int:
        """Connections that live: not cut, and not closed at both ends."""
        return len(self._live())

    @property
    def faults(self) -> Counter[str]:
        """How often each fault struck, by the name of its method.

        `cut`, `close_gently`, `half_close`, `blackhole`, `stall`, `refuse`: connections. `fragment`: pieces torn off
        what was read at once. `delay`: reads that were delayed. `throttle`: waits for the rate.
        """
        return self._conditions.faults

    async def start(self) -> None:
        """Listen and forward. `async with` does this.

        Raises:
            AddressInUseError: another program listens on the address.
            StoreUnreachableError: the address does not resolve or is not one of this host.
        """
        if self._bound is not None or self._closed.is_set():
            raise GroupClosedError("a FaultProxy is started once")
        self._loop = asyncio.get_running_loop()
        self._listener = await bind(self._asked)
        self._bound = address_of(self._listener)
        self._listen()

    async def close(self) -> None:
        """Reset every connection and free the address; a chaos that runs ends. Closing twice is fine."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        if self._accept_again is not None:
            self._accept_again.cancel()
        if self._bound is not None and self._bound.path:
            try:
                os.unlink(self._bound.path)
            except FileNotFoundError:
                pass  # somebody tidied up before us
        for relay in list(self._relays):
            relay.reset()
        while self._relays:
            self._relay_gone.clear()
            await self._relay_gone.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    # -------------------------------------------------------------------------------------- faults that break

    def cut(self, after: int | None = None) -> None:
        """Reset every live connection at both ends, dropping what is held: at once, or when `after` more bytes passed.

        The bytes are counted for each connection, both ways together, and the cut falls exactly behind the last of
        them, wherever that is. A second call counts anew. (A unix socket knows no reset: its peer reads the end of
        file, or a reset if it had sent what nobody has read.)
        """
        if after is not None and after < 1:
            raise ValueError(f"after must be at least 1 byte, not {after}")
        for relay in self._live():
            if after is None:
                relay.cut()
            else:
                relay.budget = after

    def close_gently(self) -> None:
        """Both ends of every live connection read the end of file, behind the bytes that the proxy has read so far.

        What they send from now on is read and thrown away; a socket is closed when its peer closes, at the latest
        2 seconds after both have been told. Connections in a black hole are not reached.
        """
        for relay in self._live():
            told = [relay.half_close(lane) for lane in (relay.to_target, relay.to_client)]
            self.faults["close_gently"] += any(told)

    def half_close(self, direction: Direction) -> None:
        """The same in one direction only: "to_target" or "to_client" reads the end of file and may still send."""
        if direction not in ("to_target", "to_client"):
            raise ValueError(f'direction must be "to_target" or "to_client", not {direction!r}')
        for relay in self._live():
            lane = relay.to_target if direction == "to_target" else relay.to_client
            self.faults["half_close"] += relay.half_close(lane)

    def blackhole(self) -> None:
        """Read and throw away all that comes in on every live connection from now on, and what is held.

        Neither end learns anything, not even that the other closes; the connection lives until it is cut or both close.
        """
        for relay in self._live():
            self.faults["blackhole"] += relay.vanish()

    # --------------------------------------------------------------------------------------- faults that last

    def stall(self) -> None:
        """Forward nothing, neither bytes nor an end, and leave the connections open, until `resume`."""
        if not self._conditions.stalled:
            self._conditions.stalled = True
            self.faults["stall"] += self.connections
            self._changed()

    def resume(self) -> None:
        """Go on where `stall` stopped. Nothing was lost."""
        self._conditions.stalled = False
        self._changed()

    def fragment(self, most: int | None) -> None:
        """Forward in pieces of random size, 1 to `most` bytes, each a write in its own pass of the loop; None: whole.

        Small pieces cost time: count on some ten thousand pieces a second.
        """
        if most is not None and most < 1:
            raise ValueError(f"most must be at least 1 byte, not {most}")
        self._conditions.most = most
        self._changed()

    def delay(self, seconds: float) -> None:
        """Forward what is read from now on only after so many seconds, each way; order is kept. 0: at once."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be finite and not negative, not {seconds}")
        self._conditions.delay = seconds
        self._changed()

    def throttle(self, bytes_per_second: float | None) -> None:
        """Forward no faster than this, for each connection and each way; None: as fast as can be."""
        if bytes_per_second is not None and not 0 < bytes_per_second < math.inf:
            raise ValueError(f"bytes_per_second must be finite and more than 0, not {bytes_per_second}")
        self._conditions.rate = bytes_per_second
        self._changed()

    def refuse(self) -> None:
        """Reset new connections as soon as they are there, until `accept`. Live ones go on."""
        self._refusing = True

    def accept(self) -> None:
        """Accept new connections again."""
        self._refusing = False

    def calm(self) -> None:
        """Take back every fault that lasts, and cuts that have not fallen. A black hole stays: cut what is in it."""
        conditions = self._conditions
        conditions.stalled, conditions.most, conditions.delay, conditions.rate = False, None, 0.0, None
        self._refusing = False
        for relay in self._relays:
            relay.budget = None
        self._changed()

    async def chaos(self, *, cuts: int, between: tuple[float, float]) -> None:
        """Cut `cuts` times, at random, a random time within `between` seconds from one cut to the next; then calm.

        Half of the cuts fall at once; half after a random number of bytes, 1 to 200,000, and at the end of their time
        on those connections where so many did not pass. Between cuts bytes may stand still for up to 0.2 seconds, or
        come in small pieces. `fragment`, `stall` and `resume` are the chaos's own while it runs; other faults that
        last go on till it ends. A cut that finds no connection counts among `cuts`, and not in `faults`.

        It ends early when the proxy is closed. However it ends, also cancelled, the state after it is that of `calm`.
        """
        shortest, longest = between
        if cuts < 0:
            raise ValueError(f"cuts must not be negative: {cuts}")
        if not 0 <= shortest <= longest < math.inf:
            raise ValueError(f"between must be two finite times in ascending order, not {between}")
        try:
            for _ in range(cuts):
                await self._live_through(Spell.draw(self._chance, between))
        finally:
            self.calm()

    # ------------------------------------------------------------------------------------------------ inside

    async def _live_through(self, spell: Spell) -> None:
        begin = asyncio.get_running_loop().time()
        self.fragment(spell.most)
        await self._sleep_until(begin + spell.calm)
        if spell.stall:
            self.stall()
            await self._sleep_until(begin + spell.calm + spell.stall)
            self.resume()
        if spell.after is not None:
            self.cut(spell.after)
        await self._sleep_until(begin + spell.length)
        for relay in self._live():
            if spell.after is None or relay.budget is not None:
                relay.cut()

    async def _sleep_until(self, when: float) -> None:
        """Sleep until then, in loop time, or until the proxy is closed."""
        try:
            async with asyncio.timeout_at(when):
                await self._closed.wait()
        except TimeoutError:
            pass  # which is what was asked for

    def _live(self) -> list[Relay]:
        return [relay for relay in self._relays if not relay.is_over]

    def _changed(self) -> None:
        self._conditions.changed()
        for relay in self._live():
            relay.conditions_changed()

    # Not by asyncio.Server: what it has accepted when it is closed may be left open, and nobody is told.

    def _listen(self) -> None:
        assert self._listener is not None
        self._loop.add_reader(self._listener, self._connect, self._listener)

    def _connect(self, listener: socket.socket) -> None:
        """Accept a connection. Those that wait behind it have the next passes of the loop."""
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has gone away again
        except OSError as error:
            logger.warning("%r cannot accept a connection: %s", self, error)
            self._loop.remove_reader(listener)
            self._accept_again = self._loop.call_later(ACCEPT_PAUSE, self._listen)
            return
        if self._refusing:
            self.faults["refuse"] += 1
            reset_socket(sock)
            sock.close()
            return
        sock.setblocking(False)
        self.accepted += 1
        self.faults["stall"] += self._conditions.stalled
        relay = Relay(self._conditions, self._gone)
        self._relays.add(relay)
        relay.connect(self._loop.create_task(self._attach(relay, sock), name=f"connect to {self.target}"))

    async def _attach(self, relay: Relay, sock: socket.socket) -> None:
        """Give both ends their sockets; the one to the target may stay away."""
        target = self.target
        try:
            await self._loop.connect_accepted_socket(lambda: relay.client, sock)
        except BaseException:
            sock.close()
            raise
        if not relay.dials():
            return
        try:
            if target.path:
                await self._loop.create_unix_connection(lambda: relay.target, target.path)
            else:
                await self._loop.create_connection(lambda: relay.target, target.host, target.port)
        except OSError as error:
            logger.info("the target %s was not reached: %s", target, error)

    def _gone(self, relay: Relay) -> None:
        self._relays.discard(relay)
        self._relay_gone.set()
