"""`aiopg.integrations.vllm` against the real files of vLLM 0.33, as real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest

from aiopg.integrations import vllm as integration
from tests.integrations.forked import Forked
from tests.system.ranks import SLOW, free_port, serving

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "integrations.md"
LONG = bool(os.environ.get("AIOPG_TEST_LONG"))
IMPORT = "from vllm.distributed.utils import StatelessProcessGroup"

BARRIERS = 100_000 if LONG else 12_000
GROWTH_BYTES = 1 << 19
"""What a process may seem to grow by in four fifths of them; with 160 bytes kept for each it would be more."""


@pytest.fixture(scope="module")
def ranks() -> Iterator[Forked]:
    """What ranks are forked from."""
    with Forked("tests.integrations.vllm_ranks", 600 if LONG else 50) as forked:
        yield forked


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a store that runs: rank 0 joins it, where else it would host one, which takes time."""
    with serving() as (url, _):
        yield int(url.rpartition(":")[2])


# ---------------------------------------------------------------------------------------------------- the methods


def test_it_is_a_group_of_vllm_s(ranks: Forked, port: int) -> None:
    """isinstance holds, and every field of the dataclass is there, with its meaning."""
    ranks.run("methods.identity", 2, port)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("program", ["methods.objects", "methods.tensors", "methods.reductions"])
def test_the_methods_do_what_vllm_s_do(ranks: Forked, port: int, program: str, world_size: int) -> None:
    """Objects, tensors of every dtype and order in memory, and reductions that are the same on all ranks."""
    ranks.run(program, world_size, port)


def test_nothing_is_pickled(ranks: Forked, port: int) -> None:
    """All methods work where pickle raises."""
    ranks.run("methods.without_pickle", 2, port)


def test_a_large_tensor_passes(ranks: Forked, port: int) -> None:
    """12 MB, which are encoded off the event loop."""
    ranks.run("methods.large", 2, port)


def test_mistakes_are_told(ranks: Forked, port: int) -> None:
    """A wrong shape, dtype, op, kind of message or class is named, and the group goes on."""
    ranks.run("methods.mistakes", 2, port)


def test_what_a_member_sends_is_not_believed(ranks: Forked, port: int) -> None:
    """Bytes that make no structure are a CodecError; the group goes on."""
    ranks.run("methods.hostile", 2, port)


# ----------------------------------------------------------------------------------------- what is done with it


@pytest.mark.parametrize("world_size", [2, 4])
def test_pynccl_takes_it(ranks: Forked, port: int, world_size: int) -> None:
    """The real PyNcclCommunicator, up to the GPU: its ncclUniqueId, a ctypes structure, reaches every rank."""
    ranks.run("uses.communicator", world_size, port)


def test_vllm_s_own_functions_work_over_it(ranks: Forked, port: int) -> None:
    """in_the_same_node_as, the metadata of a dict of tensors, a MessageQueue's handle."""
    ranks.run("uses.same_node", 2, port)


def test_vllm_s_coordinator_works_over_it(ranks: Forked) -> None:
    """The one of elastic expert parallelism, which binds sockets first: dicts of tensors, objects, barriers."""
    ranks.run("uses.coordinator", 2, free_port())


@pytest.mark.timeout(600 if LONG else 60)
def test_a_barrier_for_each_parameter_leaves_nothing_behind(ranks: Forked) -> None:
    """Memory of the members and of the store stays what it was: 12,000 barriers, or 100,000 with AIOPG_TEST_LONG=1."""
    with serving() as (url, pid):
        told = ranks.run("uses.barriers", 2, int(url.rpartition(":")[2]), BARRIERS, pid)
    print(f"{BARRIERS} barriers of 2: {told}")
    for rank in told:
        (own, store), (own_after, store_after) = rank["memory"]
        assert own_after - own < GROWTH_BYTES
        assert store_after - store < GROWTH_BYTES
        assert rank["entries"] <= 1024


def test_a_script_for_vllm_s_group_runs_unchanged(ranks: Forked, tmp_path: Path) -> None:
    """With only its import line changed it prints what it prints with vLLM's own group."""
    text = (HERE / "script_for_vllm.py").read_text()
    assert text.count(IMPORT) == 1
    changed = tmp_path / "script.py"
    changed.write_text(text.replace(IMPORT, "from aiopg.integrations.vllm import StatelessProcessGroup"))
    theirs = ranks.run("uses.script", 3, str(HERE / "script_for_vllm.py"), free_port())
    ours = ranks.run("uses.script", 3, str(changed), free_port())
    assert ours == theirs
    assert [lines[-1] for lines in ours] == ["done"] * 3


def blocks() -> list[str]:
    """The programs in the docs, of the section on vLLM."""
    section = DOCS.read_text().partition("## vLLM")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.mark.parametrize("block", range(2))
def test_the_programs_in_the_docs_run(ranks: Forked, tmp_path: Path, block: int) -> None:
    """As they stand, as two ranks, on a port of their own."""
    assert len(blocks()) == 2
    program = tmp_path / "program.py"
    program.write_text(blocks()[block].replace("29501", str(free_port())))
    first, second = ranks.run("uses.script", 2, str(program), 0)
    assert first == second == ["7 [0, 1]"]


# ---------------------------------------------------------------------------------------------------- life cycle


def test_a_group_ends_with_its_last_reference(ranks: Forked) -> None:
    """vLLM's has no close(); who drops it can make the next one on the same port at once."""
    ranks.run("life.dropped", 2, free_port())


@pytest.mark.parametrize("victim", [0, 2])
def test_the_death_of_a_rank_is_told(ranks: Forked, victim: int) -> None:
    """Where vLLM's others wait for store_timeout, ours know in seconds who it is, and can go on without it."""
    told = ranks.run("life.death", 4, free_port(), victim)
    assert told.pop(victim) is None
    assert max(told) < 5 * SLOW


def test_it_can_use_a_store_that_runs(ranks: Forked, port: int) -> None:
    """By URL, and over a group in hand."""
    ranks.run("life.at_a_store", 2, f"aiopg://127.0.0.1:{port}")


def test_a_listening_socket_is_served_on(ranks: Forked) -> None:
    """listen_socket, as vLLM's create has it."""
    ranks.run("life.listening", 2, free_port())


def test_patch_makes_vllm_s_create_ours(ranks: Forked, port: int) -> None:
    """And back, in any nesting; again and again changes nothing."""
    ranks.run("life.patched", 2, port)


def test_vllm_s_processes_patch_themselves(ranks: Forked, port: int) -> None:
    """vLLM loads the plugin, which does what AIOPG_PATCH_VLLM says, and else nothing."""
    ranks.run("life.plugged", 2, port)


# ------------------------------------------------------------------------------------------------------ no vLLM


def test_importing_it_imports_no_vllm() -> None:
    """The module can be looked at where there is no vLLM, and unpatched."""
    code = (
        "import sys; from aiopg.integrations import vllm; vllm.unpatch(); print({'vllm', 'torch'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("set()\n", "")
    with pytest.raises(AttributeError, match="nothing"):
        getattr(integration, "nothing")  # noqa: B009 - mypy would not have it


def test_no_vllm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(sys.modules, "vllm", None)
    uses = (
        integration.patch,
        lambda: integration.StatelessProcessGroup,
        lambda: integration.stateless_group("127.0.0.1", 1, 0, 1),
    )
    for use in uses:
        with pytest.raises(ImportError, match=re.escape("pip install 'aiopg-group[vllm]'")):
            use()


def create(
    host: str,
    port: int,
    rank: int,
    world_size: int,
    data_expiration_seconds: int = 3600,
    store_timeout: int = 300,
) -> None:
    """What vLLM had before listen_socket."""


METHODS: dict[str, Any] = dict.fromkeys(
    ["send_obj", "recv_obj", "broadcast_obj", "all_gather_obj", "barrier", "expire_data"], lambda self: None
) | {"create": staticmethod(create)}

OTHERS: list[tuple[Any, str]] = [
    (None, "no dataclass"),
    (make_dataclass("G", ["rank"], namespace={k: v for k, v in METHODS.items() if k != "barrier"}), "has no barrier"),
    (make_dataclass("G", ["rank"], namespace=METHODS | {"gather_obj": lambda self: None}), "also has gather_obj"),
    (make_dataclass("G", ["rank"], namespace=METHODS | {"create": lambda host, url: None}), r"takes \(host, url\)"),
]


@pytest.mark.parametrize(("other", "difference"), OTHERS, ids=[difference for _, difference in OTHERS])
def test_another_vllm_is_told(monkeypatch: pytest.MonkeyPatch, other: Any, difference: str) -> None:
    """Which version is known, which is here, and what is different; nothing is patched."""
    install(monkeypatch, other)
    with pytest.raises(ImportError, match=rf"vLLM 0\.33.*vLLM 9\.9\.9.*{difference}"):
        integration.patch()


def test_an_earlier_vllm_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without methods for tensors, and without listen_socket."""
    from aiopg.integrations.vllm._found import find_group_class

    earlier = make_dataclass("G", ["rank"], namespace=METHODS)
    install(monkeypatch, earlier)
    assert find_group_class() is earlier


def install(monkeypatch: pytest.MonkeyPatch, group_class: Any) -> None:
    """A vLLM with this group class."""
    modules: dict[str, Any] = {
        name: types.ModuleType(name) for name in ("vllm", "vllm.version", "vllm.distributed", "vllm.distributed.utils")
    }
    modules["vllm.version"].__version__ = "9.9.9"
    modules["vllm.distributed.utils"].StatelessProcessGroup = group_class
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
