"""torch.distributed over `as_store`, as real processes: gloo on loopback, our store behind a token and TLS."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aiopg.cli._certs import write_certificates
from tests.integrations.forked import ROOT, Forked
from tests.system.ranks import serving

DOCS = ROOT / "docs" / "integrations.md"
TOKEN = "a token of these tests alone"


@pytest.fixture(scope="module")
def ranks() -> Iterator[Forked]:
    """What ranks are forked from."""
    with Forked("tests.integrations.torch_ranks") as forked:
        yield forked


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A store of our own, which asks for nothing."""
    with serving() as (url, _):
        yield url


class Guarded(NamedTuple):
    """A store behind a token and TLS, and what members need."""

    url: str
    member: tuple[str, str, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One that runs, and asks members for a certificate as well."""
    certs = tmp_path_factory.mktemp("torch") / "certs"
    write_certificates(certs, [])
    tls = [
        "--tls-cert",
        str(certs / "store.pem"),
        "--tls-key",
        str(certs / "store.key"),
        "--tls-ca",
        str(certs / "ca.pem"),
    ]
    command = [sys.executable, "-m", "aiopg", "serve", *tls]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"AIOPG_TOKEN": TOKEN}
    ) as server:
        try:
            assert server.stdout is not None
            member = str(certs / "member.pem"), str(certs / "member.key"), str(certs / "ca.pem")
            yield Guarded(server.stdout.readline().strip(), member)
        finally:
            server.terminate()


def test_gloo_works_over_a_store_behind_a_token_and_tls(ranks: Forked, guarded: Guarded) -> None:
    """all_reduce, broadcast, all_gather_object, barrier, new_group, over 4 processes; no thread of ours is left."""
    assert ranks.run("gloo.collectives", 4, guarded.url, TOKEN, *guarded.member) == [[]] * 4
    ranks.run("gloo.strangers", 1, guarded.url, *guarded.member)


def test_gloo_s_own_threads_use_it(ranks: Forked, url: str) -> None:
    """C++ calls it from threads that Python never started, several at once."""
    assert all(count > 0 for count in ranks.run("gloo.foreign_threads", 3, url))


def test_a_run_over_a_group_s_keys_can_be_started_again(ranks: Forked, url: str) -> None:
    """With the same names: what the one before left would lead gloo to addresses that are gone."""
    ranks.run("gloo.again", 3, url)


def test_a_rank_that_is_missing_is_told(ranks: Forked, url: str) -> None:
    """By a DistStoreError, at the deadline, with the key that was waited for: that of the rank."""
    for told in ranks.run("gloo.incomplete", 2, url):
        assert re.match(r"wait of 'incomplete/.*/2' timed out after .*timeout 0.5 s", told)


def blocks() -> list[str]:
    """The programs in the docs, of the section on torch."""
    section = DOCS.read_text().partition("## torch")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.mark.parametrize("block", range(2))
def test_the_programs_in_the_docs_run(ranks: Forked, url: str, tmp_path: Path, block: int) -> None:
    """As they stand, but for the port, as two ranks that are told apart by RANK, as torchrun has it."""
    assert len(blocks()) == 2
    assert "aiopg://127.0.0.1:29400" in blocks()[block]
    program = tmp_path / "program.py"
    program.write_text(blocks()[block].replace("aiopg://127.0.0.1:29400", url))
    assert ranks.run("gloo.script", 2, str(program)) == [["3.0"]] * 2
