"""The files in deploy/ are in order and fit together, and the lines of docs/deploying.md can be copied."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .deployment import (
    COMMANDS,
    COMPOSE,
    DEPLOY,
    DOCKERFILE,
    PAGE,
    ROOT,
    STORE,
    UNIT,
    WORKERS,
    container,
    worker_environments,
)

SOURCES = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))


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
    assert "AIOPG_TOKEN" in place


SCHEMAS = {
    "check-jsonschema": ["--builtin-schema=vendor.compose-spec", "compose.yaml"],
    "kubernetes-validate": ["--strict", *(f"kubernetes/{name}.yaml" for name in ("store", "token", "workers"))],
}


@pytest.mark.parametrize("program", SCHEMAS)
def test_the_files_are_as_their_schemas_ask(program: str) -> None:
    """Every field is one that there is, and of its type."""
    path = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert path is not None, f"{program} is not installed: it is in the extra dev"
    seen = subprocess.run([path, *SCHEMAS[program]], cwd=DEPLOY, capture_output=True, text=True, timeout=50)
    assert seen.returncode == 0, seen.stdout + seen.stderr


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
