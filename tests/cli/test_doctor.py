"""`aiopg doctor`: what is wrong between here and a store, and what to do."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from aiopg import StoreServer, Tls, __version__
from aiopg.address import Address
from aiopg.cli._authority import Authority
from aiopg.cli.doctor._findings import Finding, fine, verdict, warning
from aiopg.cli.doctor._host import look_at_host, look_at_store_process
from aiopg.cli.doctor._listeners import listeners

from .programs import RunAiopg, StartAiopg

TOKEN = "the token of these tests, long enough"

Found: TypeAlias = dict[str, list[dict[str, str]]]
"""What was found, by what it is about."""

Doctor: TypeAlias = Callable[..., Awaitable[tuple[int, Found]]]
"""`await doctor(url, token="")`: the exit code, and what was found."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither token nor TLS, whatever the tests run with."""
    for name in ("AIOPG_TOKEN", "AIOPG_TLS_CA", "AIOPG_TLS_CERT", "AIOPG_TLS_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def doctor(run: RunAiopg, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Runs it; the exit code, and what was found."""

    async def doctor(*arguments: str, token: str = "") -> tuple[int, Found]:
        monkeypatch.setenv("AIOPG_TOKEN", token)
        code, out, err = await run("doctor", "--json", "--timeout", "5", *arguments)
        assert err == ""
        found: Found = {}
        for finding in json.loads(out):
            found.setdefault(finding["about"], []).append(finding)
        return code, found

    return doctor


async def test_a_store_that_is_well_is_code_0(doctor: Doctor) -> None:
    """Every step is told, with the time that an answer takes; no clocks are compared."""
    async with StoreServer(token=TOKEN) as server:
        code, found = await doctor(server.address, token=TOKEN)
    assert code == 0
    assert set(found) >= {
        "version",
        "name",
        "connection",
        "keepalive",
        "login",
        "latency",
        "limits",
        "files",
        "backlog",
    }
    assert all(finding["level"] != "FAULT" for each in found.values() for finding in each)
    (latency,) = found["latency"]
    assert "median of 50 questions for a key" in latency["text"]
    assert "know the same token" in found["login"][0]["text"]
    assert f"aiopg {__version__}" in found["version"][-1]["text"]
    assert any("the store's process" in finding["text"] for finding in found["files"])
    if sys.platform == "linux":
        assert found["listening"][0]["level"] == "ok"


async def test_people_get_lines_with_what_to_do(run: RunAiopg) -> None:
    """A level, a word, what is so, and under a fault what to do."""
    async with StoreServer(token=TOKEN) as server:
        code, out, err = await run("doctor", server.address)
    assert (code, err) == (2, "")
    lines = out.splitlines()
    assert lines[-2].startswith("FAULT  login      the store asks for a token")
    assert lines[-1].strip() == "-> give --token-file, or set AIOPG_TOKEN to what the store has"


@pytest.mark.parametrize(
    ("theirs", "ours", "fix"),
    [
        ("", TOKEN, "unset AIOPG_TOKEN"),
        (TOKEN, TOKEN + "!", "it is another one than the store's"),
    ],
)
async def test_a_token_that_does_not_fit_is_told_apart(doctor: Doctor, theirs: str, ours: str, fix: str) -> None:
    """None where one is wanted, one where none is, another one."""
    async with StoreServer(token=theirs) as server:
        code, found = await doctor(server.address, token=ours)
    (login,) = found["login"]
    assert (code, login["level"]) == (2, "FAULT")
    assert login["fix"].startswith(fix)
    assert ours not in json.dumps(found)


async def test_a_name_that_is_not_known(doctor: Doctor) -> None:
    """Nothing else is looked at on the way."""
    code, found = await doctor("aiopg://no-such-host.invalid:7000")
    assert (code, found["name"][0]["level"]) == (2, "FAULT")
    assert "getent hosts no-such-host.invalid" in found["name"][0]["fix"]
    assert "connection" not in found


async def test_a_port_on_which_nobody_listens(doctor: Doctor) -> None:
    """What could be wrong with the address that the store listens on is said."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        code, found = await doctor(f"aiopg://127.0.0.1:{held.getsockname()[1]}")
    assert (code, found["connection"][0]["level"]) == (2, "FAULT")
    assert "nobody listens on 127.0.0.1 port" in found["connection"][0]["text"]
    assert "serve with --host" in found["connection"][0]["fix"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells who listens")
async def test_a_store_that_listens_on_another_address_of_this_host(doctor: Doctor) -> None:
    """The usual mistake: it listens on one address, members call another."""
    async with StoreServer("127.0.0.1", token="") as server:
        port = int(server.address.rpartition(":")[2])
        code, found = await doctor(f"aiopg://127.0.0.2:{port}")
        assert list(listeners(port)) == ["127.0.0.1"]
    assert (code, found["listening"][0]["level"]) == (2, "FAULT")
    assert "is listened on at 127.0.0.1 only" in found["listening"][0]["text"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells who listens")
async def test_a_store_that_stands_still(doctor: Doctor, start: StartAiopg) -> None:
    """Its kernel makes connections, and it accepts none."""
    server = start("serve")
    url = server.line()
    server.send(signal.SIGSTOP)
    try:
        code, found = await doctor("--timeout", "0.5", url)
    finally:
        server.send(signal.SIGCONT)
    assert code == 2
    assert "connections wait there to be accepted" in found["listening"][1]["text"]
    assert "its process is stopped" in found["store"][0]["fix"]


async def test_something_that_is_no_store(doctor: Doctor) -> None:
    """Another program's port is told as such."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + 200 * b" ")

        threading.Thread(target=answer, daemon=True).start()
        code, found = await doctor(f"aiopg://127.0.0.1:{other.getsockname()[1]}")
        other.shutdown(socket.SHUT_RDWR)
    assert (code, found["store"][0]["level"]) == (2, "FAULT")


async def test_a_unix_socket(doctor: Doctor, tmp_path: Path) -> None:
    """One that is listened on, one whose store has died, and no socket at all."""
    path = tmp_path / "store.sock"
    async with StoreServer(path=str(path), token="") as server:
        code, found = await doctor(server.address)
        assert (code, found["socket"][0]["level"]) == (0, "ok")
    code, found = await doctor(server.address)
    assert code == 2
    assert "there is no" in found["socket"][0]["text"]
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    code, found = await doctor(server.address)
    assert "its store has died" in found["socket"][0]["text"]
    path.unlink()
    path.touch()
    code, found = await doctor(server.address)
    assert "is no socket" in found["socket"][0]["text"]


class Certificates:
    """Files of one authority."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = Authority("the authority of these tests")
        self.ca = str(directory / "ca.pem")
        (directory / "ca.pem").write_bytes(self._authority.cert)

    def store(self, *names: str, days: float = 300) -> Tls:
        """For a store."""
        pair = self._authority.issue("store", names, days=days)
        cert, key = self._directory / "store.pem", self._directory / "store.key"
        cert.write_bytes(pair.cert)
        key.write_bytes(pair.key)
        return Tls(str(cert), str(key))


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def test_the_names_and_the_end_of_a_certificate_are_told(doctor: Doctor, certificates: Certificates) -> None:
    """With TLS 1.3 and an authority that is believed all is well."""
    async with StoreServer(token="", ssl=certificates.store("localhost", "127.0.0.1")) as server:
        code, found = await doctor("--tls-ca", certificates.ca, server.address)
    names, end = found["TLS"]
    assert (code, names["level"], end["level"]) == (0, "ok", "ok")
    assert "TLSv1.3; the certificate of 'localhost' is believed, and is for localhost, 127.0.0.1" in names["text"]
    assert "ends in 300 days" in end["text"] or "ends in 299 days" in end["text"]


@pytest.mark.parametrize(
    ("names", "days", "text", "fix"),
    [
        (("db.example",), 300, "it is for db.example", "aiopg certs --name 127.0.0.1"),
        (("127.0.0.1",), -1, "certificate has expired", "make a new certificate"),
    ],
)
async def test_a_certificate_that_members_refuse(
    doctor: Doctor, certificates: Certificates, names: tuple[str, ...], days: float, text: str, fix: str
) -> None:
    """Another name, a time that is over: what is in it is told all the same."""
    async with StoreServer(token="", ssl=certificates.store(*names, days=days)) as server:
        code, found = await doctor("--tls-ca", certificates.ca, server.address)
    (finding,) = found["TLS"]
    assert (code, finding["level"]) == (2, "FAULT")
    assert text in finding["text"]
    assert fix in finding["fix"]


async def test_a_certificate_that_ends_soon_is_warned_of(doctor: Doctor, certificates: Certificates) -> None:
    """Code 1: it works, and will not for long."""
    async with StoreServer(token="", ssl=certificates.store("127.0.0.1", days=3)) as server:
        code, found = await doctor("--tls-ca", certificates.ca, server.address)
    assert (code, found["TLS"][1]["level"]) == (1, "warn")


async def test_an_authority_that_is_not_believed(doctor: Doctor, certificates: Certificates, tmp_path: Path) -> None:
    """Whose certificate it is, and which option to give."""
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other")
    async with StoreServer(token="", ssl=certificates.store("127.0.0.1")) as server:
        code, found = await doctor("--tls-ca", other.ca, server.address)
    (finding,) = found["TLS"]
    assert code == 2
    assert "it was issued by 'the authority of these tests'" in finding["text"]
    assert "--tls-ca" in finding["fix"]


async def test_tls_on_one_end_alone(doctor: Doctor, certificates: Certificates) -> None:
    """Either way round."""
    async with StoreServer(token="", ssl=certificates.store("127.0.0.1")) as server:
        code, found = await doctor(server.address)
    assert (code, found["TLS"][0]["fix"].startswith("give --tls-ca")) == (2, True)
    async with StoreServer(token="") as server:
        code, found = await doctor("--tls-ca", certificates.ca, server.address)
    assert (code, found["TLS"][0]["fix"].startswith("leave away")) == (2, True)


async def test_a_url_that_makes_no_sense_is_code_2(run: RunAiopg) -> None:
    """In one line."""
    for url in ("aiopg://127.0.0.1", "http:/x", "memory://x"):
        code, _, err = await run("doctor", url)
        assert (code, err.count("\n")) == (2, 1), url


def test_few_files_and_a_short_backlog_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of this host, without a store."""
    short = tmp_path / "somaxconn"
    short.write_text("128\n")
    monkeypatch.setattr("aiopg.cli.doctor._host.SOMAXCONN", short)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        found = {finding.about: finding for finding in look_at_host()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found["files"].level, found["backlog"].level) == ("note", "warn")
    assert found["backlog"].fix == "on the store's host: sysctl -w net.core.somaxconn=4096"


def test_the_process_of_another_host_is_not_looked_at() -> None:
    """A pid means something on its own host alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert list(look_at_store_process(Address("127.0.0.1", free.getsockname()[1]), os.getpid())) == []


def test_the_exit_code_is_that_of_the_worst() -> None:
    """0, 1 for something that will not last, 2 for what does not work."""
    fault = Finding("FAULT", "x", "y", "z")
    assert [verdict(found) for found in ([], [fine("x", "y")], [warning("x", "y", "z")], [fault, fine("x", "y")])] == [
        0, 0, 1, 2,
    ]  # fmt: skip


def test_what_a_store_says_is_shown_as_text() -> None:
    """Also in findings."""
    (line,) = fine("name", "\x1b[2J").lines()
    assert line == r"ok     name       \x1b[2J"
    assert ssl.OPENSSL_VERSION in next(iter(look_at_host())).text
