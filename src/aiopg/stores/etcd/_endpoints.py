"""The members of an etcd cluster that this process may talk to, and with which one it does.

Theory of operation.

- Any member serves any request: it passes on what is the leader's. So all requests go to one endpoint, the current one,
  until that fails: refuses the connection, answers that it has no leader (cut off from the others, it says so, since we
  ask it to with `hasleader`), or does not answer in time. Then the next one is current, for all.
- Whoever fails says which endpoint he used: `move` from one that is not current any more does nothing. So a hundred
  requests that fail together move once.
- What waits at the old endpoint is told of the move (`telling`), and waits at the new one: a request that a member got
  just before it was cut off, or before its leader died, would wait for long, and a watch for ever.
- A round of all endpoints without an answer is followed by a pause, which grows up to `LONGEST_PAUSE`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from aiopg import forks
from aiopg.errors import UsageError
from aiopg.tls import Tls

__all__ = ["ATTEMPT_SECONDS", "Endpoint", "Endpoints", "check_endpoints", "credentials", "import_grpc"]

_imported: int | None = None
"""`forks.count` when grpc was imported here."""

ATTEMPT_SECONDS: Final = 2.0
"""How long an endpoint may take for an answer before the request goes to the next one. (A request that was with a
leader when it died is answered by nobody, and one that comes a second or two later, after the election, at once.) It
doubles when all endpoints were as slow."""

LONGEST_ATTEMPT: Final = 32.0

SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5

ANSWER_BYTES: Final = 256 * 1024 * 1024
"""The largest answer that is taken. We ask for so few keys at a time that no answer comes near it."""

OPTIONS: Final = (
    ("grpc.max_receive_message_length", ANSWER_BYTES),
    ("grpc.max_send_message_length", ANSWER_BYTES),
    # After its endpoint was away a channel is to dial again at once: the pauses between attempts are ours.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A watch may be silent for hours. If its endpoint's host dies without a word, this tells; etcd would take more
    # than a ping in 5 seconds for an attack.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
)


def import_grpc() -> Any:
    """The package grpc.

    Its own handlers of forks are switched off, if nobody has told it otherwise: they run in every child that uvloop
    starts, before that is another program, and may end it there.

    Raises `ImportError` that says how to get it, and `UsageError` in a process that was forked from one that had it.
    """
    global _imported
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        import grpc
    except ImportError as error:
        raise ImportError("a store on etcd needs the package grpcio; run: pip install 'aiopg-group[etcd]'") from error
    if _imported is None:
        _imported = forks.count
    elif _imported != forks.count:
        raise UsageError(
            "this process was forked from one that had a store in etcd, and gRPC does not work in such a child: have "
            "multiprocessing spawn its processes instead of forking them"
        )
    return grpc


def check_endpoints(endpoints: Sequence[str]) -> tuple[str, ...]:
    """The endpoints if each is "host:port". Raises `ValueError`."""
    if isinstance(endpoints, str) or not endpoints:
        raise ValueError(f"endpoints of etcd are a list of 'host:port' with at least one in it, not {endpoints!r}")
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
            raise ValueError(f"an endpoint of etcd is 'host:port', not {endpoint!r}")
    return tuple(endpoints)


def credentials(tls: Tls | None) -> Any:
    """What gRPC makes TLS from; None for none.

    gRPC has its own TLS and takes PEM bytes, not an `ssl.SSLContext`: so only a `Tls` can be used here, whose files
    are read now. Without `ca`, the authorities that Python's ssl believes by default are believed.

    Raises:
        UsageError: a file is missing or makes no sense, or the system has no file of authorities.
        TypeError: for an `ssl.SSLContext`.
    """
    if tls is None:
        return None
    if not isinstance(tls, Tls):
        raise TypeError(f"etcd's transport makes TLS from files: give aiopg.Tls(cert=, key=, ca=), not {tls!r}")
    context = tls.client_context()  # for its checks, and for the system's authorities
    ca = _read(tls.ca) if tls.ca is not None else _system_authorities(context)
    key = _read(tls.key) if tls.key is not None else None
    cert = _read(tls.cert) if tls.cert is not None else None
    return import_grpc().ssl_channel_credentials(ca, key, cert)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _system_authorities(context: ssl.SSLContext) -> bytes:
    found = context.get_ca_certs(binary_form=True)
    if not found:
        raise UsageError("this system has no file of authorities that Python finds: give ca= with that of etcd")
    return "".join(ssl.DER_cert_to_PEM_cert(cert) for cert in found).encode()


class Endpoint:
    """One member: a channel of gRPC to it, which dials when it is used, and again when it was broken."""

    def __init__(self, address: str, channel: Any) -> None:
        self.address = address
        self.channel = channel
        self._methods: dict[str, Any] = {}

    def unary(self, method: str) -> Any:
        """The method with one request and one answer. Without serializers: we hand over and get bytes."""
        if method not in self._methods:
            self._methods[method] = self.channel.unary_unary(method)
        return self._methods[method]

    def stream(self, method: str) -> Any:
        """The method with one request and a stream of answers."""
        if method not in self._methods:
            self._methods[method] = self.channel.unary_stream(method)
        return self._methods[method]


class Endpoints:
    """All of them.

    Args:
        addresses: each "host:port".
        dial: makes a channel to one of them, without waiting for it.
        patience: see `ATTEMPT_SECONDS`.

    It is for one thread.
    """

    def __init__(self, addresses: Sequence[str], dial: Callable[[str], Any], patience: float = ATTEMPT_SECONDS) -> None:
        self._addresses = tuple(addresses)
        self._dial = dial
        self._patience = patience
        self._made: dict[str, Endpoint] = {}
        self._current = 0
        self._failures = 0
        self._slow = 0
        self._to_tell: set[Callable[[], object]] = set()

    def __str__(self) -> str:
        return ",".join(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def current(self) -> Endpoint:
        """The one to use now."""
        address = self._addresses[self._current]
        if address not in self._made:
            self._made[address] = Endpoint(address, self._dial(address))
        return self._made[address]

    @property
    def attempt_seconds(self) -> float:
        """How long an attempt may take now."""
        return min(LONGEST_ATTEMPT, self._patience * 2.0 ** min(8, self._slow // len(self)))

    @property
    def pause(self) -> float:
        """Seconds to wait before the next attempt: nothing until all endpoints have failed in a row."""
        rounds = self._failures // len(self)
        return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** (min(rounds, 8) - 1)) if rounds else 0.0

    def worked(self) -> None:
        """The current endpoint answered."""
        self._failures = self._slow = 0

    def move(self, failed: str, code: Any) -> None:
        """That endpoint failed, with this code: the next one is current, unless it is another one already."""
        if failed != self._addresses[self._current]:
            return
        self._failures += 1
        self._slow += code.name == "DEADLINE_EXCEEDED"
        self._current = (self._current + 1) % len(self)
        if len(self) > 1:
            for tell in list(self._to_tell):
                tell()

    @contextmanager
    def telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """Within the block, call `tell` after each move."""
        self._to_tell.add(tell)
        try:
            yield
        finally:
            self._to_tell.discard(tell)

    def channels(self) -> list[Any]:
        """All that were made."""
        return [endpoint.channel for endpoint in list(self._made.values())]

    def again(self, patience: float) -> Endpoints:
        """The same for somebody else, beginning with the one that is current here."""
        addresses = self._addresses[self._current :] + self._addresses[: self._current]
        return Endpoints(addresses, self._dial, min(patience, self._patience))
