"""What the files in deploy/ and docs/deploying.md say, for tests."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "CHECKS", "COMMANDS", "COMPOSE", "DEPLOY", "DOCKERFILE", "PAGE", "ROOT", "SECRET", "STORE", "TOKEN", "UNIT",
    "WORKERS", "container", "here", "worker_environments",
]  # fmt: skip

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deploying.md").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
TOKEN = "the-token-of-these-tests-alone"


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


def worker_environments() -> dict[str, list[dict[str, str]]]:
    """What each worker is told, with the values that Kubernetes fills in."""
    services = COMPOSE["services"]
    composed = [services[name]["environment"] for name in services if name.startswith("worker")]
    job = WORKERS["Job"]["spec"]
    indexed = []
    for index in range(job["completions"]):
        told = {"JOB_COMPLETION_INDEX": str(index)}
        for variable in container(WORKERS["Job"])["env"]:
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                assert source["secretKeyRef"]["key"] in SECRET["stringData"]
                told[variable["name"]] = TOKEN
            else:
                told[variable["name"]] = variable["value"]
        indexed.append(told)
    return {"compose": composed, "kubernetes": indexed}
