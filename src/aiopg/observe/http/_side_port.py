"""The store's end of its HTTP side port: where it listens, the process that serves there, the questions of that."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import logging
import socket
from dataclasses import dataclass
from typing import Final, Self

import anyio

from aiopg._core.messages import pack_value
from aiopg.address import Address
from aiopg.errors import UsageError
from aiopg.observe.http._door import STATUS, TRACE, Introduction, read_frame, write_frame
from aiopg.server import StoreServer
from aiopg.server._exposure import check_exposure
from aiopg.server._python import child_environment, module_command
from aiopg.server.listen import address_of, bind
from aiopg.tls import Tls, from_environment
from aiopg.tokens import VARIABLE, Tokens, accepted_tokens

__all__ = ["HttpAddress", "SidePort"]

logger = logging.getLogger("aiopg.observe")

NEEDED: Final = ("starlette", "uvicorn", "prometheus_client")

RESTART_SECONDS = 1.0
"""A side port whose process ended is started again so much later: what ended it may be there still."""

UNREAD_MILLISECONDS = 20_000
"""A browser that is gone, or reads nothing for so long, is let go by the kernel: there is nothing to be lost."""

END_SECONDS = 3.0
"""How long its process may take to end when there is nobody any more whom it could ask."""


@dataclass(frozen=True, slots=True)
class HttpAddress(Address):
    """Where the side port listens, or is to."""

    is_encrypted: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_encrypted else 'http'}://{host}:{self.port}/"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`HOST:PORT`, `[IPV6]:PORT`, or the port alone: on loopback then. Raises `ValueError`."""
        host, _, port = text.rpartition(":")
        if not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
            raise ValueError(f"an HTTP address is HOST:PORT, or a port from 0 to 65535 alone, not {text!r}")
        return cls(host.strip("[]") or "127.0.0.1", int(port))


class SidePort:
    """Serves a page, metrics and JSON of a store that runs in this process, from a process of its own.

    ::

        side = SidePort(server, HttpAddress.parse("127.0.0.1:9300"))
        await side.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(side.run)

    Args:
        server: the store; it is started before `run` is called.
        address: where to listen; port 0 lets the kernel choose (see `url`).
        token, insecure: as for the store (`StoreServer`): who looks must know one of its tokens.
        ssl: the store's; with a certificate the side port serves https with it. It asks nobody for one.
    """

    def __init__(
        self,
        server: StoreServer,
        address: HttpAddress,
        *,
        token: Tokens | None = None,
        ssl: Tls | None = None,
        insecure: bool = False,
    ) -> None:
        self._server = server
        self._asked = address
        self._tokens = accepted_tokens(token)
        self._tls = from_environment() if ssl is None else ssl
        self._insecure = insecure
        self._socket: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def url(self) -> str:
        """What to open in a browser, once started."""
        assert self._socket is not None, "the side port is not started"
        return str(self._bound(self._socket))

    async def start(self) -> None:
        """Listen; `run` serves.

        Raises:
            AddressInUseError: another program listens on the address.
            StoreUnreachableError: it does not resolve, or is not one of this host.
            UsageError: a package of the extra `dashboard` is missing; or other hosts can reach the address, and there
                is no token. The text says what to do.
        """
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"--http needs {', '.join(missing)}: pip install 'aiopg-group[dashboard]'")
        sock = await bind(self._asked)
        try:
            check_exposure(
                self._bound(sock),
                asks_token=bool(self._tokens),
                asks_certificate=False,
                is_encrypted=True,  # that it may not be is said below, in other words
                insecure=self._insecure,
            )
        except UsageError:
            sock.close()
            raise
        host = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
        if self._tokens and self._certificate is None and not host.is_loopback:
            logger.warning(
                "%s is not encrypted, and who looks says the token: whoever is on the way between two hosts can read "
                "it. Give the store a certificate, or let it listen on loopback and use a tunnel",
                self._bound(sock),
                extra={"address": str(self._bound(sock))},
            )
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # inherited by each connection
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MILLISECONDS)
        self._socket = sock

    async def run(self) -> None:
        """Serve until cancelled. A process that ends meanwhile is told in the log, and started again.

        So is one that cannot be started, as the host has no memory or no descriptors for it.
        """
        assert self._socket is not None, "the side port is not started"
        try:
            while True:
                try:
                    code = await self._serve_once(self._socket)
                except OSError as error:  # no memory or no descriptor for it: that is no reason to end the store
                    said = {"address": self.url, "reason": str(error)}
                    logger.error("the HTTP side port cannot be started: %s; that is tried again", error, extra=said)
                else:
                    said = {"address": self.url, "reason": f"exit code {code}"}
                    logger.error("the HTTP side port ended (exit code %s); it is started again", code, extra=said)
                await anyio.sleep(RESTART_SECONDS)
        finally:
            self._socket.close()

    def accept_tokens(self, token: Tokens) -> None:
        """From here on who looks must know one of these, also who looks already. Raises `ValueError` as the store's."""
        self._tokens = accepted_tokens(token)
        if self._writer is not None:
            self._introduce(self._writer)

    @property
    def _certificate(self) -> tuple[str, str] | None:
        tls = self._tls
        return None if tls is None or tls.cert is None or tls.key is None else (tls.cert, tls.key)

    def _bound(self, sock: socket.socket) -> HttpAddress:
        bound = address_of(sock)
        return HttpAddress(bound.host, bound.port, is_encrypted=self._certificate is not None)

    def _introduce(self, writer: asyncio.StreamWriter) -> None:
        said = Introduction(self._server.address, self._tokens, self._asked.host, self._certificate)
        write_frame(writer, ["introduction", said.pack()])

    async def _serve_once(self, listening: socket.socket) -> int | None:
        """One life of the process; its exit code."""
        ours, theirs = socket.socketpair()
        try:
            fds = (theirs.fileno(), listening.fileno())
            process = await asyncio.create_subprocess_exec(
                *module_command("aiopg.observe.http.child", *map(str, fds)),
                pass_fds=fds,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env={name: value for name, value in child_environment().items() if name != VARIABLE},
                start_new_session=True,  # a terminal's Ctrl-C is for the store
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours)
            self._introduce(self._writer)
            await self._answer(reader, self._writer)
        finally:
            if self._writer is not None:
                self._writer.close()
            self._writer = None
            await _end(process)
        return process.returncode

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer questions until nobody asks any more."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                question = await read_frame(reader)
                began = loop.time()
                packed = b"".join(pack_value(self._answer_to(question)))
                write_frame(writer, ["answer", packed, loop.time() - began])
                await writer.drain()
        except (EOFError, ConnectionError):
            pass

    def _answer_to(self, question: list[object]) -> object:
        match question:
            case [str(what)] if what == STATUS:
                return self._server.describe()
            case [str(what), int(after), int(most)] if what == TRACE:
                return self._server.trace(after, most).fields()
        raise AssertionError(f"the side port asked {question!r}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends by itself when the door is closed; here it is waited for, not for ever."""
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(END_SECONDS):
            await process.wait()
            return
        process.kill()
        await process.wait()
