"""The store server: listening sockets and sessions round one engine."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from pathlib import Path
from ssl import CERT_REQUIRED
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from aiopg._core.exchange import Exchange
from aiopg._core.limits import Limits
from aiopg._core.recorder import HAPPENINGS_READ, Excerpt
from aiopg.address import Address
from aiopg.errors import GroupClosedError, UsageError
from aiopg.liveness import keep_alive
from aiopg.server._exposure import check_exposure
from aiopg.server._sessions import Sessions
from aiopg.server.listen import BACKLOG, address_of, bind, bind_name
from aiopg.shortcut import is_possible, shortcut_to
from aiopg.tls import SHUTDOWN_SECONDS, Encryption, server_context
from aiopg.tokens import Tokens, accepted_tokens
from aiopg.version import __version__

if TYPE_CHECKING:
    from aiopg.server.journal import Journal

__all__ = ["StoreServer"]

logger = logging.getLogger("aiopg.server")

ACCEPT_PASSES = 3
"""Passes of a loop in which it makes a connection: one to accept it, one to make its transport, one to tell of it."""


class StoreServer:
    """A store that any number of groups share, as an async context manager.

    ::

        async with StoreServer("127.0.0.1", 0) as server:
            group = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1)

    It runs on the event loop that enters it and holds everything in memory: it must outlive its groups. Leaving
    the block ends every session; calls that wait at a member raise `StoreLostError`.

    With `journal=` everything that happens is on disk before anybody sees its effect. A server that is started again
    on the same address with the same journal goes on where the last one was, killed or closed: members come again by
    themselves and notice nothing. When the journal has grown long, a child process makes a snapshot of it, for which it
    needs as much memory as the server, and a core, for a while. If it finds the files damaged, that is logged as an
    error: the server goes on, and cannot be started again from these files.

    On Linux a store that listens on TCP without TLS has a unix socket too, without a file, to which members on its host
    move by themselves (`aiopg.shortcut`).

    Args:
        host: address to listen on, exactly; a name must resolve to an address of this host.
        port: port to listen on; 0 lets the kernel choose one (see `address`).
        path: listen on this unix socket instead. A file left there by a server that died must be removed first.
        listen_socket: a bound, listening stream socket to serve on instead; the server takes it over and closes it.
        limits: bounds of this store, see `aiopg.Limits`. With a journal they must not be lower than they were.
        journal: a directory to keep the journal in, made if it is not there; one server at a time.
        token: a token that members must know, or several, see `aiopg.Token`; if not given, that of AIOPG_TOKEN in the
            environment. An empty text: none, whatever is set there.
        ssl: encryption, see `aiopg.Tls`; if not given, that of AIOPG_TLS_CERT, AIOPG_TLS_KEY and AIOPG_TLS_CA. With a
            `ca` members must have a certificate of it. Not for unix sockets.
        insecure: whether to serve without token where other hosts can reach the address; so does AIOPG_INSECURE=1.
        fsync: "batch": what a member has seen survives a power cut of the host; one sync for all that came meanwhile.
            "off": it survives the death of the server's process, not that of the host.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        path: str | None = None,
        listen_socket: socket.socket | None = None,
        limits: Limits | None = None,
        token: Tokens | None = None,
        ssl: Encryption | None = None,
        insecure: bool = False,
        journal: str | os.PathLike[str] | None = None,
        fsync: Literal["batch", "off"] = "batch",
    ) -> None:
        if fsync not in ("batch", "off"):
            raise ValueError(f'fsync must be "batch" or "off", not {fsync!r}')
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be 0 to 65535, not {port}")
        self.limits = limits or Limits()
        self._tokens = accepted_tokens(token)
        self._tls = server_context(ssl) if path is None else None
        self._insecure = insecure
        self.pid = os.getpid()
        self._asked = Address(path=os.path.abspath(path)) if path is not None else Address(host, port)
        self._socket = listen_socket
        self._bound: Address | None = None
        self._listeners: list[asyncio.Server] = []  # that of its address, and that of the shortcut to it
        self._about = {"pid": self.pid, "version": __version__}
        self._exchange = Exchange(self.limits, self._about)
        self._sessions: Sessions | None = None
        self._directory = None if journal is None else Path(journal)
        self._fsync: Literal["batch", "off"] = fsync
        self._journal: Journal | None = None
        self.failed = asyncio.Event()
        """The journal cannot be written any more; the server has cut its connections, takes none, is to be closed."""
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else str(self._bound) if self._bound else "not started"
        return f"<StoreServer {state} sessions={len(self._exchange.lines)} members={self._exchange.engine.members}>"

    @property
    def address(self) -> str:
        """URL to connect to, once started: `aiopg://host:port` or `unix:///path`."""
        if self._bound is None:
            raise GroupClosedError("the server has no address before it is started")
        return str(self._bound)

    async def start(self) -> None:
        """Listen and serve. `async with` does this.

        Raises:
            AddressInUseError: another program listens on the address.
            StoreUnreachableError: the address does not resolve or is not one of this host.
            UsageError: other hosts can reach the address, and there is no token; the text says what to do.
            JournalCorruptError: the journal is damaged; the error names the file and the offset.
            UsageError: another server has the journal open, or the directory holds something else.
            OSError: the journal cannot be read or written.
        """
        if self._listeners or self._closed:
            raise GroupClosedError("a StoreServer is started once")
        sock = self._socket = self._socket or await bind(self._asked)
        self._bound = address_of(sock)
        try:
            self.check_exposure()
        except UsageError:
            sock.close()
            raise
        if sock.family != socket.AF_UNIX:
            # Accepted sockets inherit it; asyncio sets it only for sockets that were made with proto=IPPROTO_TCP.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock)
        try:
            sessions = self.begin()
        except BaseException:
            sock.close()
            if self._journal is not None:
                await self._journal.close()
            raise
        try:
            # In two steps, so that a cancellation in between finds something to close.
            await self._listen(sock, sessions)
            for listener in self._listeners:
                await listener.start_serving()
        except BaseException:
            self._stop_listening()
            sock.close()
            sessions.close("the store did not start")
            if self._journal is not None:
                await self._journal.close()
            raise
        logger.info("serving on %s", self._bound, extra={"address": str(self._bound)})

    async def _listen(self, sock: socket.socket, sessions: Sessions) -> None:
        """Make the listeners, which do not serve yet."""
        if sock.family == socket.AF_UNIX:
            await self._listen_unix(sock, sessions)
            return
        tls, seconds = self._tls, self.limits.handshake_seconds
        listener = await asyncio.get_running_loop().create_server(
            sessions.accept,
            sock=sock,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=seconds if tls is not None else None,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS if tls is not None else None,
            start_serving=False,
        )
        self._listeners.append(listener)
        if tls is None and is_possible():
            await self._listen_nearby(sock.getsockname()[1], sessions)

    async def _listen_nearby(self, port: int, sessions: Sessions) -> None:
        """Make the listener of the shortcut, if it can be had."""
        try:
            sock = bind_name(shortcut_to(sessions.epoch, port))
        except OSError as error:
            logger.info(
                "members on this host stay on TCP, as there is no unix socket for them: %s",
                error,
                extra={"address": str(self._bound), "reason": str(error)},
            )
            return
        try:
            await self._listen_unix(sock, sessions)
        except BaseException:
            sock.close()
            raise

    async def _listen_unix(self, sock: socket.socket, sessions: Sessions) -> None:
        listener = await asyncio.get_running_loop().create_unix_server(
            sessions.accept, sock=sock, backlog=BACKLOG, start_serving=False
        )
        self._listeners.append(listener)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()

    def begin(self, journal: Journal | None = None) -> Sessions:
        """Be a store on the running loop without listening anywhere: whoever calls this brings the connections.

        `journal`: an open one to keep, instead of one in the directory that was given; the server closes it.

        Raises what `start` raises for a journal. Blocks while the journal is read.
        """
        if journal is None and self._directory is None:
            self._sessions = Sessions(self._exchange, self.limits, secrets.token_bytes(16), None, self._tokens)
            return self._sessions
        # Here, because most stores have no journal and need none of this.
        from aiopg.server._compactor import ChildCompactor
        from aiopg.server._scribe import Scribe
        from aiopg.server.journal import Journal

        if journal is None:
            assert self._directory is not None
            compactor = ChildCompactor(self.limits, self._about)
            journal = Journal.open(self._directory, fsync=self._fsync, compactor=compactor)
        self._journal = journal
        scribe = Scribe(journal, self.limits, self._about)
        self._exchange = scribe.exchange
        self._sessions = Sessions(self._exchange, self.limits, journal.epoch, scribe, self._tokens)
        journal.on_failed = self._journal_failed
        return self._sessions

    def accept_tokens(self, token: Tokens) -> None:
        """From here on members must know one of these. Who is connected stays; who comes again needs one of them.

        Raises `ValueError` for a token that is none, and for none at all.
        """
        tokens = accepted_tokens(token)
        if not tokens:
            raise ValueError("a store that asked for a token goes on asking for one")
        self._tokens = tokens
        if self._sessions is not None:
            self._sessions.doorkeeper.tokens = tokens

    def check_exposure(self) -> None:
        """Raises `UsageError` if other hosts can reach the socket to listen on, and anybody may come in."""
        assert self._socket is not None
        check_exposure(
            address_of(self._socket),
            asks_token=bool(self._tokens),
            asks_certificate=self._tls is not None and self._tls.verify_mode is CERT_REQUIRED,
            is_encrypted=self._tls is not None,
            insecure=self._insecure,
        )

    def _journal_failed(self, error: OSError) -> None:
        logger.error(
            "the journal in %s cannot be written, so nothing more is promised: %s",
            self._directory,
            error,
            extra={"journal": str(self._directory), "address": str(self._bound), "reason": str(error)},
        )
        self._stop_listening()
        if self._sessions is not None:
            self._sessions.give_up(f"the store's journal cannot be written: {error}")
        self.failed.set()

    async def close(self) -> None:
        """Stop serving: end every session and free the address. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._sessions is not None:
            self._sessions.prepare_close()
        if self._listeners:
            await _stop_accepting(self._listeners)
            self._stop_listening()
        if self._sessions is not None:
            self._sessions.close("the store was closed")
        elif self._socket is not None:
            self._socket.close()
        if self._bound is not None and self._bound.path:
            try:
                os.unlink(self._bound.path)
            except FileNotFoundError:
                pass  # somebody tidied up before us
        if self._sessions is not None:
            await self._sessions.wait_closed()
        for listener in self._listeners:
            await listener.wait_closed()
        if self._journal is not None:
            await self._journal.close()

    async def wait_joined(self) -> None:
        """Wait for the first member that this store ever has."""
        await self._started().joined.wait()

    async def wait_vacated(self) -> None:
        """Wait until there is no member; at once if there is none."""
        vacated = self._started().vacated
        while not self._exchange.engine.is_vacant:
            vacated.clear()
            await vacated.wait()

    def process_ended(self, pid: int, how: str) -> None:
        """Say that a process of this host ended, and how ("was killed by SIGKILL"): its members are lost at once.

        For launchers. Where the system has pidfds the server sees it by itself, and does not know how.
        """
        self._started().process_ended(pid, how)

    def _started(self) -> Sessions:
        if self._sessions is None:
            raise GroupClosedError("the server was not started")
        return self._sessions

    def describe(self) -> dict[str, object]:
        """State of the store for people and tools: groups, members, open rounds, bytes. Plain values."""
        now = None if self._sessions is None else self._sessions.now()
        return self._exchange.engine.describe(now=now)

    def trace(self, after: int = 0, most: int = HAPPENINGS_READ, group: str = "") -> Excerpt:
        """What happened on the store: see `StoreLink.trace`. Empty before it is started."""
        now = None if self._sessions is None else self._sessions.now()
        return self._exchange.engine.excerpt(after, most, group, now=now)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


async def _stop_accepting(listeners: list[asyncio.Server]) -> None:
    """Take no more connections, and make those that are accepted.

    asyncio (3.11) leaves one open for ever that it has accepted and not yet made when its listener is closed: making it
    fails then, and nobody has it. uvloop makes them as it accepts them, and has no reader to remove.
    """
    for listener in listeners:
        for listening in listener.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(ACCEPT_PASSES):
        await asyncio.sleep(0)
