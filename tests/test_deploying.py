"""deploy/ and docs/deploying.md: what can be tried without systemd, Docker and Kubernetes is tried.

Their command lines are started as they stand, but for paths, ports and the address to listen on.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiopg import AsyncStatelessGroup, StoreServer, Tls

from .cli.programs import Program
from .system.ranks import free_port

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deploying.md").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
SOURCES = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
TOKEN = "the-token-of-these-tests-alone"

# ------------------------------------------------------------------------------------------------- the files


def unit(text: str) -> list[tuple[str, str]]:
    """The settings of a unit of systemd, in order."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] not in "#["]
    assert all("=" in line for line in lines)
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def manifests(name: str) -> dict[str, Any]:
    """The documents of one of Kubernetes' files, by kind."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))
    return {document["kind"]: document for document in documents}


def instruction(name: str) -> Any:
    """The array of one of the Dockerfile's instructions."""
    (found,) = re.findall(rf"^{name} .*?(\[.*\])$", DOCKERFILE, re.MULTILINE)
    return json.loads(found)


COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
STORE, WORKERS, SECRET = manifests("store.yaml"), manifests("workers.yaml"), manifests("token.yaml")["Secret"]
UNIT = unit((DEPLOY / "aiopg.service").read_text())
DROP_IN = unit(re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)[0])


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    """The one container of a pod."""
    (found,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(found)


COMMANDS: dict[str, list[str]] = {
    "systemd": shlex.split(dict(UNIT)["ExecStart"]),
    "systemd with TLS": shlex.split(dict(DROP_IN)["ExecStart"]),
    "docker": instruction("ENTRYPOINT") + instruction("CMD"),
    "compose": instruction("ENTRYPOINT") + COMPOSE["services"]["store"]["command"],
    "kubernetes": container(STORE["StatefulSet"])["command"] + container(STORE["StatefulSet"])["args"],
}
CHECKS: dict[str, list[str]] = {
    "docker": instruction("HEALTHCHECK"),
    "compose": COMPOSE["services"]["store"]["healthcheck"]["test"][1:],
    "kubernetes": container(STORE["StatefulSet"])["livenessProbe"]["exec"]["command"],
}


def here(command: list[str], directory: Path, port: int) -> list[str]:
    """A command line with paths, port and address of this test."""
    places = {
        "%d/": f"{directory}/",
        "%S/": f"{directory}/",
        "/run/secrets/aiopg/": f"{directory}/",
        "/var/lib/aiopg/": f"{directory}/",
        "/opt/aiopg/": f"{DEPLOY}/",
        "29400": str(port),
        "0.0.0.0": "127.0.0.1",
    }
    for there, mine in places.items():
        command = [word.replace(there, mine) for word in command]
    return command


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With a token in it, and what systemd makes for a service."""
    (tmp_path / "aiopg").mkdir()
    write_token(tmp_path / "token", TOKEN)
    return tmp_path


def write_token(path: Path, token: str, mode: int = 0o440) -> None:
    path.touch(0o600)
    path.write_text(token + "\n")
    path.chmod(mode)


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[Program]:
    """`aiopg` with the arguments of a command line."""
    assert Path(command[0]).name == "aiopg"
    with closing(Program(*command[1:], environment=environment)) as program:
        yield program


async def meet(url: str, **options: Any) -> None:
    """Two members form a group at a store."""

    async def member(rank: int) -> list[int]:
        group = await AsyncStatelessGroup.connect(
            url, rank=rank, world_size=2, token=TOKEN, store_timeout=20, **options
        )
        async with group:
            return await group.all_gather(rank)

    assert [*await asyncio.gather(member(0), member(1))] == [[0, 1]] * 2


# -------------------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("name", COMMANDS)
def test_a_group_forms_at_the_store_and_it_ends_cleanly(name: str, directory: Path) -> None:
    """Each command line, with the token where it is looked for, and the journal where it is kept."""
    port = free_port()
    command = here(COMMANDS[name], directory, port)
    ssl = None
    if "--tls-cert" in command:
        with started(["aiopg", "certs", str(directory / "certs")]) as certs:
            assert certs.code() == 0
        for file in ("store.pem", "store.key"):
            shutil.copy(directory / "certs" / file, directory / file)
        ssl = Tls(ca=str(directory / "certs" / "ca.pem"))
    environment = {} if any("--token-file" in word for word in command) else {"AIOPG_TOKEN": TOKEN}
    with started(command, **environment) as store:
        assert store.line() == f"aiopg://127.0.0.1:{port}"
        asyncio.run(meet(f"aiopg://127.0.0.1:{port}", ssl=ssl))
        store.send(signal.SIGTERM)
        assert store.code() == 0
    assert any((directory / place).is_dir() for place in ("journal", "aiopg/journal"))


def test_members_notice_nothing_of_a_restart(directory: Path) -> None:
    """What the page promises of a store with a journal that is ended and started again."""
    command = here(COMMANDS["systemd"], directory, free_port())

    async def call_over_a_restart() -> list[Any]:
        with started(command) as store:
            url = store.line()
            one, other = await asyncio.gather(
                *(AsyncStatelessGroup.connect(url, rank=rank, world_size=2, token=TOKEN) for rank in range(2))
            )
            waiting = asyncio.create_task(one.all_gather("one", timeout=30))
            await other.send("it is there", 0)
            assert await one.recv(1) == "it is there"
            store.send(signal.SIGTERM)
            assert await asyncio.to_thread(store.code) == 0
        with started(command) as again:
            assert await asyncio.to_thread(again.line) == url
            async with one, other:
                return [await other.all_gather("other", timeout=30), await waiting]

    assert asyncio.run(call_over_a_restart()) == [["one", "other"]] * 2


@pytest.mark.parametrize("name", ["docker", "compose"])
def test_without_a_token_the_image_refuses_to_serve(name: str, directory: Path) -> None:
    """Where other hosts reach it; it says so before it listens."""
    command = [word.replace("127.0.0.1", "0.0.0.0") for word in here(COMMANDS[name], directory, free_port())]
    with started(command, AIOPG_TOKEN="") as store:
        code, _, said = store.finish()
        assert code == 2
        assert b"set AIOPG_TOKEN" in said


def test_the_token_that_is_in_the_file_is_refused(directory: Path) -> None:
    """So nobody serves with it."""
    write_token(directory / "token", SECRET["stringData"]["token"], 0o600)
    with started(here(COMMANDS["kubernetes"], directory, free_port())) as store:
        assert (store.code(), "16 bytes or more" in store.error_line()) == (2, True)


def test_a_token_with_the_usual_mode_of_a_secret_is_refused(directory: Path) -> None:
    """And the manifest's is not that one."""
    (directory / "token").chmod(0o644)
    with started(here(COMMANDS["kubernetes"], directory, free_port())) as store:
        assert (store.code(), "chmod 600" in store.error_line()) == (2, True)
    token, *_ = [v for v in STORE["StatefulSet"]["spec"]["template"]["spec"]["volumes"] if v["name"] == "token"]
    assert token["secret"]["defaultMode"] == 0o440
    assert not token["secret"]["defaultMode"] & stat.S_IROTH


# ------------------------------------------------------------------------------------------------- its health


def check(name: str, port: int) -> subprocess.CompletedProcess[str]:
    """Run a health check against a port."""
    command = here(CHECKS[name], DEPLOY, port)
    assert command[0] == "python"
    return subprocess.run([sys.executable, "-W", "error", *command[1:]], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("name", CHECKS)
async def test_a_store_that_answers_is_healthy(name: str) -> None:
    """It need not know the token, and leaves nothing behind."""
    async with StoreServer(token=TOKEN) as server:
        port = int(server.address.rpartition(":")[2])
        assert (await asyncio.to_thread(check, name, port)).returncode == 0
        assert server.describe()["members"] == 0


def test_where_no_store_answers_it_is_not_healthy() -> None:
    """Nobody, or somebody else; it says which."""
    assert "no store answers" in check("docker", free_port()).stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        answering = threading.Thread(target=answer_as_a_web_server, args=(other,))
        answering.start()
        seen = check("docker", other.getsockname()[1])
        answering.join()
    assert (seen.returncode, "is no store" in seen.stderr) == (1, True)


def answer_as_a_web_server(listener: socket.socket) -> None:
    """Once."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


# ------------------------------------------------------------------------------------------------- the workers


def worker_environments() -> dict[str, list[dict[str, str]]]:
    """What each worker is told, with the values that Kubernetes fills in."""
    services = COMPOSE["services"]
    composed = [services[name]["environment"] for name in services if name.startswith("worker")]
    job = WORKERS["Job"]["spec"]
    indexed = []
    for index in range(job["completions"]):
        told = {}
        for variable in container(WORKERS["Job"])["env"]:
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                assert source["fieldRef"]["fieldPath"].endswith("['batch.kubernetes.io/job-completion-index']")
                told[variable["name"]] = str(index)
            elif "secretKeyRef" in source:
                assert source["secretKeyRef"]["key"] in SECRET["stringData"]
                told[variable["name"]] = TOKEN
            else:
                told[variable["name"]] = variable["value"]
        indexed.append(told)
    return {"compose": composed, "kubernetes": indexed}


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_the_workers_find_each_other(name: str) -> None:
    """With the variables that they are given, and the program that they are."""
    manifest = COMPOSE["services"]["worker-0"] if name == "compose" else container(WORKERS["Job"])
    program = here(manifest["entrypoint" if name == "compose" else "command"], DEPLOY, 0)[1:]
    places = worker_environments()[name]

    async def run() -> list[tuple[int | None, str]]:
        async with StoreServer(token=TOKEN) as server:
            here = {"AIOPG_URL": server.address, "AIOPG_TOKEN": TOKEN}
            workers = [
                await asyncio.create_subprocess_exec(
                    sys.executable, *program, env=os.environ | place | here, stdout=subprocess.PIPE
                )
                for place in places
            ]
            said = [(await worker.communicate())[0].decode() for worker in workers]
            return [(worker.returncode, line) for worker, line in zip(workers, said, strict=True)]

    for rank, (code, line) in enumerate(asyncio.run(run())):
        assert code == 0
        assert line.startswith(f"rank {rank} of {len(places)}: the workers are ")


def test_every_variable_is_one_that_the_code_reads() -> None:
    """Those in the files, and those on the page."""
    named = set(COMPOSE["services"]["store"]["environment"]) | set(re.findall(r"AIOPG_[A-Z_]+[A-Z]", PAGE))
    for places in worker_environments().values():
        named |= set().union(*places)
    for name in named:
        assert f'"{name}"' in SOURCES, name


def test_the_parts_of_kubernetes_fit_together() -> None:
    """Names, labels, ports, volumes and numbers."""
    store, job = STORE["StatefulSet"]["spec"], WORKERS["Job"]["spec"]
    for service, pods in ((STORE["Service"], store), (WORKERS["Service"], job)):
        assert service["spec"]["selector"].items() <= pods["template"]["metadata"]["labels"].items()
    assert store["selector"]["matchLabels"] == store["template"]["metadata"]["labels"]
    assert STORE["Service"]["spec"]["selector"] != WORKERS["Service"]["spec"]["selector"]
    place = {variable["name"]: variable.get("value") for variable in container(WORKERS["Job"])["env"]}
    (port,) = STORE["Service"]["spec"]["ports"]
    assert place["AIOPG_URL"] == f"aiopg://{STORE['Service']['metadata']['name']}:{port['port']}"
    (exposed,) = container(STORE["StatefulSet"])["ports"]
    assert port["targetPort"] == exposed["name"]
    assert f"--port={exposed['containerPort']}" in COMMANDS["kubernetes"]
    assert place["WORLD_SIZE"] == str(job["completions"]) == str(job["parallelism"])
    assert (job["completionMode"], WORKERS["Service"]["spec"]["clusterIP"]) == ("Indexed", "None")
    assert job["template"]["spec"]["subdomain"] == WORKERS["Service"]["metadata"]["name"]
    volumes = {volume["name"] for volume in store["template"]["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in store["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container(STORE["StatefulSet"])["volumeMounts"]} == volumes
    assert place.keys() >= {"RANK", "AIOPG_TOKEN"}


# -------------------------------------------------------------------------------------- the image and the unit


def test_what_the_image_is_made_of_is_there() -> None:
    """Files that are copied, the extra that is installed, the port."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text()
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}\n" in kept
    assert {project["readme"], *project["license-files"]} <= {source for sources in copied for source in sources}
    (extra,) = re.findall(r"pip install .*\[(\w+)\]", DOCKERFILE)
    assert extra in project["optional-dependencies"]
    assert f"EXPOSE {COMMANDS['docker'][COMMANDS['docker'].index('--port') + 1]}" in DOCKERFILE
    assert COMPOSE["services"]["store"]["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}


def test_nobody_runs_as_root() -> None:
    """In no container, and not under systemd."""
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.MULTILINE)
    for manifest in (STORE["StatefulSet"], WORKERS["Job"]):
        assert manifest["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"]
        assert container(manifest)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container(manifest)["securityContext"]["allowPrivilegeEscalation"]
    assert dict(UNIT)["DynamicUser"] == "yes"
    assert dict(UNIT)["CapabilityBoundingSet"] == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("with_drop_in", [False, True])
def test_systemd_finds_the_unit_in_order(tmp_path: Path, with_drop_in: bool) -> None:
    """All but the program, which is not installed here; and that little is left to it."""
    path = tmp_path / "aiopg.service"
    text = (DEPLOY / "aiopg.service").read_text().replace("/opt/aiopg/bin/aiopg", sys.executable)
    if with_drop_in:
        drop_in = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)[0]
        text += drop_in.replace("/opt/aiopg/bin/aiopg", sys.executable)
    path.write_text(text)
    for arguments in (["verify", "--man=no"], ["security", "--offline=yes", "--threshold=25"]):
        seen = subprocess.run(["systemd-analyze", *arguments, str(path)], capture_output=True, text=True, timeout=30)
        assert seen.returncode == 0, seen.stdout + seen.stderr
        assert str(path) not in seen.stderr


# -------------------------------------------------------------------------------------------------- the page

ABSENT = ("systemctl", "docker", "kubectl", "python3")


@pytest.mark.parametrize("lines", re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
def test_the_lines_of_the_page_can_be_copied(lines: str, tmp_path: Path) -> None:
    """What is not here only notes what it was told; the files that it is told of are there."""
    programs, noted = tmp_path / "programs", tmp_path / "noted"
    programs.mkdir()
    for name in ABSENT:
        stub(programs / name, f'printf "%s\\n" "{name} $*" >> {shlex.quote(str(noted))}')
    stub(programs / "aiopg", f'exec {shlex.quote(sys.executable)} -m aiopg "$@"')
    stub(programs / "pip", "true")
    (tmp_path / "opt" / "aiopg").mkdir(parents=True)
    (tmp_path / "opt" / "aiopg" / "bin").symlink_to(programs)
    (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
    (tmp_path / "etc" / "aiopg").mkdir(mode=0o700)
    mine = lines.replace("/opt/", f"{tmp_path}/opt/").replace("/etc/", f"{tmp_path}/etc/")
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", mine], cwd=ROOT, env=environment, check=True, timeout=50)
    for told in noted.read_text().splitlines():
        for file in re.findall(r"-f (\S+)", told):
            assert (ROOT / file).is_file()
        assert not re.search(r"token=$", told)
    if "token >" in lines:
        token = tmp_path / "etc" / "aiopg" / "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text().split()[0]) == 64


def stub(path: Path, line: str) -> None:
    """A program of one line."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
