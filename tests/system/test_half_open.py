"""A peer whose host is gone without a word: found by the kernel's means alone, in time.

Two network namespaces of the test's own are joined by a cable (veth). One holds a listener, the other a client, with
the options and questions of `aiopg.liveness` on plain sockets. Then the cable is cut, or the address at the far end is
taken away, and the end that is left measures how long it takes to learn of it.

A run takes 36 s and needs root and iproute2: it is skipped unless AIOPG_TEST_LONG=1.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from aiopg.liveness import SWEEP_SECONDS, is_vanished, keep_alive, limit_unanswered

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("AIOPG_TEST_LONG") != "1",
        reason="HALF-OPEN CONNECTIONS ARE NOT TESTED: 36 s a run, set AIOPG_TEST_LONG=1",
    ),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="HALF-OPEN CONNECTIONS ARE NOT TESTED: network namespaces need root and iproute2",
    ),
    pytest.mark.timeout(150),
]

ADDRESS = {"server": "192.0.2.1", "client": "192.0.2.2"}
"""Of the range that is kept for documentation, and known in the two namespaces only."""

PORT = 7000
LINK = "cable"
FAR = {"server": "client", "client": "server"}
CONNECTIONS = ("idle", "in flight")

IDLE_SECONDS = {"server": 26.0, "client": 31.0}
"""The client's own limit takes the place of the count of probes (`limit_unanswered`)."""
IN_FLIGHT_SECONDS = 36.0


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True, timeout=10)


class Network:
    """Two namespaces joined by a cable, with one Python process in each."""

    def __init__(self) -> None:
        self.names = {end: f"aiopg-test-{os.getpid()}-{end}" for end in ADDRESS}
        self.ends: dict[str, subprocess.Popen[str]] = {}

    def build(self) -> None:
        """Lay the cable and give each end its address."""
        for name in self.names.values():
            ip("netns", "add", name)
        server, client = self.names["server"], self.names["client"]
        ip("-n", server, "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", client)
        for end, name in self.names.items():
            ip("-n", name, "address", "add", f"{ADDRESS[end]}/24", "dev", LINK)
            ip("-n", name, "link", "set", LINK, "up")

    def start(self, end: str) -> None:
        """Start this end, and wait until it listens or is connected."""
        command = ["ip", "netns", "exec", self.names[end], sys.executable, __file__, end]
        self.ends[end] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line(end) == "ready"

    def line(self, end: str) -> object:
        """The next thing that this end says."""
        stdout = self.ends[end].stdout
        assert stdout is not None
        text = stdout.readline()
        assert text, f"the {end} has ended"
        return json.loads(text)

    def cut(self, end: str, how: str) -> None:
        """The host at this end is gone for the other one."""
        if how == "address":
            ip("-n", self.names[end], "address", "flush", "dev", LINK)
        else:
            ip("-n", self.names[end], "link", "set", LINK, "down")

    def measure(self, end: str) -> dict[str, float]:
        """Have this end find out what has become of its peer; how long that took, by connection."""
        stdin = self.ends[end].stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()
        found = self.line(end)
        assert isinstance(found, dict)
        return found

    def remove(self) -> None:
        """End the processes and unmake the namespaces, and with them the cable."""
        for process in self.ends.values():
            process.kill()
            process.communicate()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=10, stderr=subprocess.DEVNULL)


@pytest.fixture
def network() -> Iterator[Network]:
    """Two connected ends."""
    network = Network()
    try:
        network.build()
        network.start("server")
        network.start("client")
        yield network
    finally:
        network.remove()


@pytest.mark.parametrize("how", ["address", "link"])
@pytest.mark.parametrize("observer", ["server", "client"])
def test_a_dead_host_is_found_in_time(network: Network, observer: str, how: str) -> None:
    """Idle by keepalive; with data in flight by the server's sweep and by the client's kernel."""
    network.cut(FAR[observer], how)
    found = network.measure(observer)
    print(f"{observer}, {how}: {found}")
    assert found["idle"] <= IDLE_SECONDS[observer]
    assert found["in flight"] <= IN_FLIGHT_SECONDS
    assert min(found.values()) >= 10  # or something else than the time without an answer has ended them


# ------------------------------------------------------------- what runs in the namespaces: python FILE END


def say(value: object) -> None:
    """One line for the test."""
    print(json.dumps(value), flush=True)


def connected(end: str) -> Iterator[socket.socket]:
    """This end of each connection."""
    if end == "client":
        for _ in CONNECTIONS:
            sock = socket.create_connection((ADDRESS["server"], PORT), timeout=10)
            sock.settimeout(None)
            keep_alive(sock)
            limit_unanswered(sock)
            yield sock
        return
    with socket.create_server((ADDRESS["server"], PORT)) as listener:
        keep_alive(listener)
        say("ready")
        for _ in CONNECTIONS:
            yield listener.accept()[0]


def wait_for_error(sock: socket.socket) -> None:
    """Wait until the kernel ends the connection."""
    try:
        sock.recv(1)
    except TimeoutError:
        return
    raise AssertionError("the peer has answered")


def wait_for_verdict(sock: socket.socket) -> None:
    """Sweep until the peer is found vanished. Nobody's sweep knows when a cable is cut."""
    time.sleep(random.uniform(0, SWEEP_SECONDS))
    while not is_vanished(sock):
        time.sleep(SWEEP_SECONDS)


def main(end: str) -> None:
    """Connect; at a line on standard input send something on one connection, and watch both."""
    idle, in_flight = connected(end)
    if end == "client":
        say("ready")
    sys.stdin.readline()
    started = time.monotonic()
    found: dict[str, float] = {}

    def watch(name: str, wait: Callable[[socket.socket], None], sock: socket.socket) -> None:
        wait(sock)
        found[name] = round(time.monotonic() - started, 2)

    in_flight.send(b"x")
    ways = [wait_for_error, wait_for_verdict if end == "server" else wait_for_error]
    threads = [
        threading.Thread(target=watch, args=(name, way, sock))
        for name, way, sock in zip(CONNECTIONS, ways, (idle, in_flight), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(found)


if __name__ == "__main__":
    main(sys.argv[1])
