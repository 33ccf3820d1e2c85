"""Connections in memory: every byte once and in order, within the window, and each fault as it is described."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from tests.simulation.loop import SimLoop
from tests.simulation.network import Connection, SimNetwork, SimTransport

ADDRESS = "store:1"
WINDOW = 1000


class Stream(asyncio.Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._got = bytearray()
        self.pieces: list[int] = []
        self.calls: list[str] = []
        self.lost: list[tuple[float, Exception | None]] = []
        self.came = asyncio.Event()
        self.over = asyncio.Event()
        self.keep_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimTransport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        assert data
        assert not self.lost
        self._got += data
        self.pieces.append(len(data))
        self.came.set()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append((self.loop.time(), exc))
        self.over.set()

    @property
    def got(self) -> bytes:
        """All that came."""
        return bytes(self._got)

    @property
    def fate(self) -> str:
        """How it ended: "open", "closed" or the error's type."""
        assert len(self.lost) <= 1
        if not self.lost:
            return "open"
        return "closed" if self.lost[0][1] is None else type(self.lost[0][1]).__name__


class Buffered(asyncio.BufferedProtocol):
    """The same with a buffer of its own, of 1 to 7 bytes."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.connection_made = self.stream.connection_made  # type: ignore[method-assign]
        self.connection_lost = self.stream.connection_lost  # type: ignore[method-assign]
        self.eof_received = self.stream.eof_received  # type: ignore[method-assign]
        self.pause_writing = self.stream.pause_writing  # type: ignore[method-assign]
        self.resume_writing = self.stream.resume_writing  # type: ignore[method-assign]
        self._buffer = bytearray()

    def get_buffer(self, sizehint: int) -> bytearray:
        self._buffer = bytearray(1 + len(self.stream.pieces) % 7)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert nbytes <= len(self._buffer)
        self.stream.data_received(bytes(self._buffer[:nbytes]))


class World:
    """A loop, a network with a listener, and the streams that it accepted."""

    def __init__(self, seed: int, factory: Callable[[], Stream | Buffered] = Stream, **options: Any) -> None:
        self.loop = SimLoop()
        self.random = Random(seed)
        self.network = SimNetwork(self.loop, self.random, **{"window": WINDOW, **options})
        self.factory = factory
        self.served: list[Stream] = []
        self.accepted: asyncio.Queue[Stream] = asyncio.Queue()
        self.listener = self.network.listen(ADDRESS, self._accept, owner="server")

    def _accept(self) -> Stream | Buffered:
        protocol = self.factory()
        stream = protocol if isinstance(protocol, Stream) else protocol.stream
        self.served.append(stream)
        self.accepted.put_nowait(stream)
        return protocol

    async def connect(self, owner: str = "client") -> tuple[Stream, Stream, Connection]:
        """A connection: its client's stream, its server's, and itself."""
        transport, protocol = await self.network.connect(ADDRESS, self.factory, owner=owner)
        client = protocol if isinstance(protocol, Stream) else protocol.stream
        return client, await self.accepted.get(), transport.connection


@contextmanager
def world(seed: int = 1, **options: Any) -> Iterator[World]:
    """A world in which nothing may fail unseen."""
    print("seed", seed)
    made = World(seed, **options)
    try:
        yield made
    finally:
        made.loop.close()
    assert made.loop.failures == []


def run(scene: Callable[[World], Coroutine[Any, Any, None]], seed: int = 1, **options: Any) -> World:
    """Play the scene."""
    with world(seed, **options) as made:
        made.loop.run(scene(made))
    return made


async def talk(stream: Stream, other: Stream, chance: Random, said: bytearray, window: int = WINDOW) -> None:
    """Write at random, in random pieces, and now and then read nothing for a while."""
    for _ in range(20):
        data = chance.randbytes(chance.choice((0, 1, 10, 300, 3000)))
        said += data
        if chance.random() < 0.5:
            stream.transport.write(data)
        else:
            stream.transport.writelines([data[:7], memoryview(data)[7:]])
        assert max(stream.transport.connection.in_flight) <= window
        if chance.random() < 0.1:
            stream.transport.pause_reading()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.01)
        stream.transport.resume_reading()
    while len(other.got) < len(said):
        assert max(stream.transport.connection.in_flight) <= window
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("factory", [Stream, Buffered])
@pytest.mark.parametrize("seed", range(20))
def test_bytes_arrive_once_in_order_and_in_random_pieces(seed: int, factory: Callable[[], Stream | Buffered]) -> None:
    """Both ways at once, whatever the receiver's kind; and never more than the window is under way."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        said = bytearray(), bytearray()
        async with asyncio.timeout(1000), asyncio.TaskGroup() as tasks:
            tasks.create_task(talk(client, server, w.random, said[0]))
            tasks.create_task(talk(server, client, w.random, said[1]))
        assert (server.got, client.got) == (bytes(said[0]), bytes(said[1]))
        assert len(server.pieces) > 5
        assert w.network.connections == [connection]
        client.transport.close()
        await server.over.wait()
        assert (client.fate, server.fate, server.calls[-1]) == ("closed", "closed", "eof")
        assert w.network.connections == []

    run(scene, seed, factory=factory)


def test_a_piece_is_anything_from_one_byte_to_all() -> None:
    """Each of them, often; and a delay is anything in its range, and often none."""
    with world(1, latency=(1.0, 2.0)) as w:
        pieces = {w.network.fragment(5) for _ in range(1000)}
        delays = {w.network.delay() for _ in range(1000)}
    assert pieces == {1, 2, 3, 4, 5}
    assert min(delays) == 0.0
    assert all(1.0 <= delay < 2.0 for delay in delays if delay)


def test_the_same_seed_is_the_same_run() -> None:
    """Each event at the same time, in the same order, in the same pieces; another seed is another run."""

    def play(seed: int) -> tuple[str, list[str], int, float]:
        async def scene(w: World) -> None:
            w.network.log = []
            streams = [await w.connect(f"client {number}") for number in range(4)]
            async with asyncio.TaskGroup() as tasks:
                for client, server, _ in streams:
                    tasks.create_task(talk(client, server, w.random, bytearray()))
                    tasks.create_task(talk(server, client, w.random, bytearray()))
            w.network.cut(w.network.connections[w.random.randrange(4)])
            w.network.kill("server")
            await asyncio.sleep(1)
            logs.append(w.network.log)

        logs: list[list[str]] = []
        w = run(scene, seed)
        return w.network.trace, logs[0], w.loop.steps, w.loop.time()

    first, again, other = play(7), play(7), play(8)
    assert first == again
    assert first[0] != other[0]
    assert len(first[1]) > 200


def test_a_slow_reader_makes_the_writer_pause() -> None:
    """Above the high mark pause_writing is called once, at the low mark resume_writing."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        client.transport.set_write_buffer_limits(5000, 2000)
        assert client.transport.get_write_buffer_limits() == (2000, 5000)
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        client.transport.write(bytes(WINDOW + 5000))
        assert (client.calls, client.transport.get_write_buffer_size()) == (["made"], 5000)
        client.transport.write(b"1")
        client.transport.write(b"2")
        await asyncio.sleep(10)
        assert (client.calls, client.transport.get_write_buffer_size()) == (["made", "pause"], 5002)
        assert (connection.in_flight, server.got) == ((0, WINDOW), b"")
        server.transport.resume_reading()
        while "resume" not in client.calls:
            assert client.transport.get_write_buffer_size() > 2000 - WINDOW
            await asyncio.sleep(0.0001)
        assert client.transport.get_write_buffer_size() <= 2000
        await asyncio.sleep(10)
        assert (len(server.got), client.calls) == (WINDOW + 5002, ["made", "pause", "resume"])
        client.transport.abort()

    run(scene)


def test_an_address_is_listened_on_once_and_refuses_when_nobody_does() -> None:
    """As the kernel says it; what was accepted before goes on."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        with pytest.raises(OSError, match="in use"):
            w.network.listen(ADDRESS, Stream)
        w.listener.close()
        w.listener.close()
        for address in (ADDRESS, "nowhere"):
            with pytest.raises(ConnectionRefusedError):
                await w.network.connect(address, Stream)
        client.transport.write(b"still here")
        await asyncio.sleep(1)
        assert (server.got, w.network.connections) == (b"still here", [connection])
        again = w.network.listen(ADDRESS, Stream)
        w.listener.close()  # not the one that listens now
        await w.network.connect(ADDRESS, Stream)
        again.close()

    run(scene)


@pytest.mark.parametrize("seed", range(30))
def test_a_cancelled_connect_leaves_no_connection(seed: int) -> None:
    """At whatever moment; the other end, if it accepted, is told."""

    async def scene(w: World) -> None:
        call = asyncio.create_task(w.network.connect(ADDRESS, Stream))
        await asyncio.sleep(w.random.random() * 4)
        if call.done():
            call.result()[0].abort()
        call.cancel()
        await asyncio.sleep(5)
        assert w.network.connections == []
        assert [server.fate for server in w.served] in ([], ["ConnectionResetError"])

    run(scene, seed, latency=(1.0, 2.0))


def test_a_transport_says_who_it_joins() -> None:
    """And has no socket; it refuses what asyncio's refuses."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect("rank 2")
        assert client.transport.get_extra_info("peername") == ADDRESS
        assert server.transport.get_extra_info("peername") == client.transport.get_extra_info("sockname") == "rank 2#1"
        assert client.transport.get_extra_info("socket") is None
        assert client.transport.get_protocol() is client
        assert (connection.number, connection.client, connection.server) == (1, client.transport, server.transport)
        assert "open" in repr(connection)
        with pytest.raises(TypeError, match="bytes-like"):
            client.transport.write("text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="high"):
            client.transport.set_write_buffer_limits(1, 2)
        client.transport.abort()

    run(scene)


def test_close_delivers_what_was_written() -> None:
    """However long it takes; then the end of the stream. Nothing more is read here."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect()
        client.transport.write(bytes(10 * WINDOW))
        client.transport.close()
        client.transport.close()
        assert client.transport.is_closing()
        assert client.fate == "open"
        await server.over.wait()
        assert (len(server.got), server.calls) == (10 * WINDOW, ["made", "eof"])
        assert (client.fate, server.fate) == ("closed", "closed")
        client.transport.write(b"into the void")
        client.transport.abort()

    run(scene)


def test_one_direction_can_end_alone() -> None:
    """After write_eof the other end may go on writing, if its eof_received says so."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect()
        server.keep_open = True
        client.transport.write(b"question")
        client.transport.write_eof()
        client.transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            client.transport.write(b"more")
        await asyncio.sleep(1)
        assert (server.got, server.calls, server.fate) == (b"question", ["made", "eof"], "open")
        server.transport.write(b"answer")
        await asyncio.sleep(1)
        assert (client.got, client.fate) == (b"answer", "open")
        client.transport.close()
        await asyncio.sleep(1)
        assert (client.fate, server.fate, server.calls) == ("closed", "open", ["made", "eof"])
        server.transport.close()
        await asyncio.sleep(1)
        assert (server.fate, client.calls, w.network.connections) == ("closed", ["made"], [])

    run(scene)


def test_bytes_to_a_closed_end_are_answered_by_a_reset() -> None:
    """As when a program wrote while the other end had closed."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect()
        server.keep_open = True
        client.transport.close()
        await asyncio.sleep(1)
        assert (client.fate, server.fate) == ("closed", "open")
        server.transport.write(b"too late")
        await server.over.wait()
        assert (client.got, server.fate, w.network.connections) == (b"", "ConnectionResetError", [])

    run(scene)


def test_abort_resets_the_other_end() -> None:
    """A random prefix of what was under way arrives, nothing of what was buffered."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect()
        said = w.random.randbytes(3 * WINDOW)
        client.transport.write(said)
        client.transport.abort()
        client.transport.abort()
        assert client.transport.get_write_buffer_size() == 0
        await server.over.wait()
        assert said.startswith(server.got)
        assert (client.fate, server.fate, server.calls) == ("closed", "ConnectionResetError", ["made"])
        lengths.add(len(server.got))

    lengths: set[int] = set()
    for seed in range(20):
        run(scene, seed)
    assert max(lengths) <= WINDOW
    assert len(lengths) > 10


def test_an_error_of_a_protocol_ends_its_connection() -> None:
    """It gets the error, the other end a reset, and the loop's failures have it."""

    class Failing(Stream):
        def data_received(self, data: bytes) -> None:
            raise ValueError("bad data")

    async def scene(w: World) -> None:
        client, server, _ = await w.connect()
        client.transport.write(b"data")
        await asyncio.sleep(1)
        assert {client.fate, server.fate} == {"ConnectionResetError", "ValueError"}

    w = World(1, Failing)
    w.loop.run(scene(w))
    w.loop.close()
    assert [str(failure.exception) for failure in w.loop.failures] == ["bad data"]


def test_a_byte_costs_little() -> None:
    """Printed, not asserted: the machine may be busy."""

    class Echo(Stream):
        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    async def scene(w: World) -> None:
        client, _, _ = await w.connect()
        began, steps = time.perf_counter(), w.loop.steps
        client.transport.write(b"x")
        await asyncio.sleep(10)
        rounds, cost = w.loop.steps - steps, time.perf_counter() - began
        print(f"{rounds} deliveries, {cost / rounds * 1e6:.2f} us each")
        client.transport.abort()

    run(scene, factory=Echo)


# --------------------------------------------------------------------------------------------------- faults


def busy(w: World, client: Stream, server: Stream, size: int = 600) -> tuple[bytes, bytes]:
    """Bytes on their way to the client and to the server."""
    said = w.random.randbytes(size), w.random.randbytes(size)
    server.transport.write(said[0])
    client.transport.write(said[1])
    return said


@pytest.mark.parametrize("seed", range(30))
def test_a_cut_delivers_a_prefix_each_way_and_tells_both_ends(seed: int) -> None:
    """A random prefix or the one given, each end after a delay of its own; nothing after it."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        said = busy(w, client, server)
        keep = (w.random.randrange(601), w.random.randrange(601)) if seed % 2 else (None, None)
        w.network.cut(connection, *keep)
        busy(w, client, server)
        await asyncio.gather(client.over.wait(), server.over.wait())
        ends = ((client, said[0], keep[0]), (server, said[1], keep[1]))
        for stream, expected, kept in ends:
            assert stream.fate == "ConnectionResetError"
            assert expected.startswith(stream.got)
            assert kept is None or len(stream.got) == kept
        lengths.append((len(client.got), len(server.got), client.lost[0][0] != server.lost[0][0]))
        await asyncio.sleep(10)
        assert (client.calls, server.calls, w.network.connections) == (["made"], ["made"], [])

    lengths: list[tuple[int, int, bool]] = []
    w = run(scene, seed)
    assert w.network.faults == {"cut": 1}
    assert lengths[0][0] != lengths[0][1] or seed % 2


def test_a_cut_reaches_an_end_that_does_not_read() -> None:
    """It loses what it did not read."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        server.transport.pause_reading()
        busy(w, client, server)
        w.network.cut(connection, 600, 600)
        await server.over.wait()
        assert (server.got, server.fate) == (b"", "ConnectionResetError")

    run(scene)


@pytest.mark.parametrize("how", ["cut", "seconds", "aborted"])
def test_a_half_open_connection_delivers_nothing_and_tells_nobody(how: str) -> None:
    """Until it is cut, or the time given is over; also when one end has given it up meanwhile."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        busy(w, client, server)
        w.network.half_open(connection, 500.0 if how == "seconds" else None)
        began = w.loop.time()
        busy(w, client, server, 3000)
        await asyncio.sleep(499)
        assert (client.got, server.got, client.fate, server.fate) == (b"", b"", "open", "open")
        if how == "aborted":
            client.transport.abort()
            await asyncio.sleep(1000)
            assert (client.fate, server.fate, w.network.connections) == ("closed", "open", [connection])
        if how != "seconds":
            w.network.cut(connection)
        await asyncio.gather(client.over.wait(), server.over.wait())
        assert (client.got, server.got, server.fate) == (b"", b"", "ConnectionResetError")
        assert (how == "seconds") == (500 <= server.lost[0][0] - began < 501 and not w.network.faults["cut"])

    w = run(scene)
    assert w.network.faults["half_open"] == 1


def test_a_stall_delays_and_loses_nothing() -> None:
    """Nothing arrives either way for its time; a cut ends it early."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        said = busy(w, client, server, 3000)
        w.network.stall(connection, 100)
        client.transport.close()
        steps = w.loop.steps
        await asyncio.sleep(99.9)
        assert w.loop.steps - steps < 20
        assert (client.got, server.got, server.fate) == (b"", b"", "open")
        await asyncio.sleep(1)
        assert (server.got, server.fate) == (said[1], "ConnectionResetError")  # it wrote to a closed end
        client, server, connection = await w.connect()
        w.network.stall(connection, 100)
        w.network.cut(connection)
        await asyncio.sleep(1)
        assert (client.fate, server.fate) == ("ConnectionResetError", "ConnectionResetError")

    assert run(scene).network.faults == {"stall": 2, "cut": 1}


def test_a_frozen_end_gets_and_sends_nothing_and_lives() -> None:
    """What had left it arrives; the other end may write until the window is full; then all goes on."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        client.transport.write(b"before")
        w.network.freeze(client.transport, 100)
        w.network.freeze(client.transport, 50)
        client.transport.write(b" after")
        said = w.random.randbytes(3 * WINDOW)
        server.transport.write(said)
        await asyncio.sleep(99)
        assert (server.got, client.got, connection.in_flight[0]) == (b"before", b"", WINDOW)
        await asyncio.sleep(2)
        assert (server.got, client.got) == (b"before after", said)
        w.network.freeze(client.transport, 100)
        client.transport.close()
        await asyncio.sleep(99)
        assert (client.fate, server.fate) == ("open", "open")
        await asyncio.sleep(2)
        assert (client.fate, server.fate) == ("closed", "closed")

    assert run(scene).network.faults == {"freeze": 3}


def test_a_frozen_end_hears_of_a_cut_when_it_thaws() -> None:
    """The other end at once; what it aborts while frozen leaves when it thaws."""

    async def scene(w: World) -> None:
        client, server, connection = await w.connect()
        w.network.freeze(client.transport, 100)
        w.network.cut(connection)
        await asyncio.sleep(99)
        assert (client.fate, server.fate) == ("open", "ConnectionResetError")
        await asyncio.sleep(2)
        assert client.fate == "ConnectionResetError"
        client, server, _ = await w.connect()
        w.network.freeze(client.transport, 100)
        client.transport.abort()
        await asyncio.sleep(99)
        assert (client.fate, server.fate) == ("closed", "open")
        await asyncio.sleep(2)
        assert server.fate == "ConnectionResetError"

    run(scene)


def test_an_address_that_refuses_refuses_new_connections_for_its_time() -> None:
    """Those that are made go on."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect()
        w.network.refuse(ADDRESS, 100)
        with pytest.raises(ConnectionRefusedError):
            await w.connect()
        client.transport.write(b"on")
        await asyncio.sleep(100)
        await w.connect()
        assert server.got == b"on"

    assert run(scene).network.faults == {"refuse": 1}


def test_a_killed_process_ends_its_connections_as_the_kernel_does() -> None:
    """All that had left arrives; then comes the end or a reset. It hears nothing itself."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect("rank 1")
        bystander, _, other = await w.connect("rank 2")
        filled = w.random.random() < 0.5
        said = w.random.randbytes(WINDOW + 500 if filled else 100)
        client.transport.write(said)
        if not filled:
            w.network.freeze(client.transport, 5)
            client.transport.write(b"never leaves")
        w.network.kill("rank 1")
        assert w.network.endpoints("rank 1") == []
        assert client.transport.is_closing()
        client.transport.write(b"from beyond the grave")
        client.transport.close()
        await server.over.wait()
        assert server.got == said[:WINDOW]
        assert (client.fate, client.got, client.calls) == ("open", b"", ["made"])
        assert (bystander.fate, w.network.connections) == ("open", [other])
        await w.connect("rank 1")  # its successor
        fates.append(server.fate)

    fates: list[str] = []
    for seed in range(20):
        assert run(scene, seed).network.faults["kill"] == 1
    assert set(fates) == {"closed", "ConnectionResetError"}


def test_of_what_a_killed_process_had_not_sent_a_random_prefix_arrives() -> None:
    """Never more than the window has room for."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect("rank 1")
        said = w.random.randbytes(WINDOW + 300)
        client.transport.write(said)
        await server.came.wait()  # there is room again, and the writer does not know yet, or does
        buffered = client.transport.get_write_buffer_size()
        w.network.kill("rank 1")
        await server.over.wait()
        assert said.startswith(server.got)
        assert len(said) - buffered <= len(server.got)
        arrived.append(len(server.got))

    arrived: list[int] = []
    for seed in range(30):
        run(scene, seed)
    assert len(set(arrived)) > 10, arrived


def test_a_killed_server_listens_no_more_until_its_successor_does() -> None:
    """The same address and the same name serve again."""

    async def scene(w: World) -> None:
        client, server, _ = await w.connect()
        w.network.kill("server")
        client.transport.write(b"is anybody there?")
        with pytest.raises(ConnectionRefusedError):
            await w.network.connect(ADDRESS, Stream)
        await client.over.wait()
        assert (server.got, server.fate) == (b"", "open")
        w.network.listen(ADDRESS, w._accept, owner="server")
        client, server, connection = await w.connect()
        client.transport.write(b"hello")
        await asyncio.sleep(1)
        assert (server.got, w.network.connections) == (b"hello", [connection])

    run(scene)
