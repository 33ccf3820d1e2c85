"""What `from_env()` makes of the variables of each launcher, and what it says when they do not suffice."""

from __future__ import annotations

import pytest

from aiopg import AsyncStatelessGroup
from aiopg.group._environment import Environment, read_environment
from aiopg.group._launchers import first_host

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}

SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_NODELIST": "gpu[05-08]",
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "2",
    "SLURM_LAUNCH_NODE_IPADDR": "10.1.1.1",
}

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PMIX_NAMESPACE": "1409220609",
    "PMIX_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "1409220608.0;tcp://10.1.1.1:35775",
}

MPICH = {"PMI_RANK": "1", "PMI_SIZE": "4", "PMI_FD": "7"}

KUBERNETES = {"JOB_COMPLETION_INDEX": "2", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}

ADDRESS = {"MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}


def place(variables: dict[str, str]) -> tuple[int, int, str, int]:
    """Rank, world size, host and port."""
    return read_environment(variables)[:4]


def refusal(variables: dict[str, str]) -> str:
    """What it says."""
    with pytest.raises(ValueError, match="environment") as caught:
        read_environment(variables)
    return str(caught.value)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (TORCHRUN, (3, 8, "node-a", 29500)),
        (SLURM, (5, 8, "gpu07", 20000 + 12345672 % 12000)),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, (5, 8, "gpu05", 20000 + 12345672 % 12000)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "", "SLURM_STEP_ID": ""}, (5, 16, "gpu07", 20000 + 12345670 % 12000)),
        (SLURM | ADDRESS, (5, 8, "node-a", 29500)),
        (SLURM | {"MASTER_PORT": "7"}, (5, 8, "gpu07", 7)),
        (MPICH | ADDRESS, (1, 4, "node-a", 29500)),
        (KUBERNETES | ADDRESS | {"WORLD_SIZE": "3"}, (2, 3, "node-a", 29500)),
    ],
)
def test_each_launcher_is_understood(variables: dict[str, str], told: tuple[int, int, str, int]) -> None:
    """By the variables that it sets, and those that are left to the user."""
    assert place(variables) == told


def test_open_mpi_on_one_host_needs_nothing_else() -> None:
    """All ranks on one host meet at loopback, on a port that only the job determines."""
    rank, world_size, host, port = place(OPEN_MPI)
    assert (rank, world_size, host) == (1, 4, "127.0.0.1")
    assert 20000 <= port < 32000
    assert place(OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "2"}) == (2, 4, host, port)
    assert place(OPEN_MPI | {"PMIX_NAMESPACE": "prterun-vm-17@1"})[3] != port


@pytest.mark.parametrize("rest", [OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, MPICH])
def test_an_address_that_is_not_said_is_not_guessed(rest: dict[str, str]) -> None:
    """The host of mpirun is not that of rank 0; what to pass to it is said."""
    said = refusal(rest)
    assert "found no MASTER_ADDR" in said
    assert "MASTER_ADDR" in said.partition("what to do:")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (SLURM | TORCHRUN, (3, 8, "node-a", 29500)),  # torchrun on each node of a Slurm job
        (SLURM | OPEN_MPI, (1, 4, "127.0.0.1")),  # mpirun in a Slurm job
        (KUBERNETES | TORCHRUN, (3, 8, "node-a", 29500)),
        (SLURM | {"PMI_RANK": "5", "PMI_SIZE": "8"}, (5, 8, "gpu07")),  # srun --mpi=pmi2
    ],
)
def test_the_innermost_launcher_wins(variables: dict[str, str], told: tuple[object, ...]) -> None:
    """One that runs inside of the job of another sets its own variables and leaves those of the other."""
    assert place(variables)[: len(told)] == told


def test_the_address_of_another_launcher_s_ranks_is_not_taken() -> None:
    """Rank 0 of one that counts differently may run anywhere."""
    assert "found no MASTER_ADDR, MASTER_PORT" in refusal(SLURM | {"RANK": "0", "WORLD_SIZE": "2"})
    assert place(SLURM | {"RANK": "5", "WORLD_SIZE": "8"})[2] == "gpu07"


def test_aiopg_s_own_variables_win() -> None:
    """AIOPG_PORT over MASTER_PORT, which may be torch's; AIOPG_URL over every address."""
    assert place(TORCHRUN | {"AIOPG_PORT": "4000"}) == (3, 8, "node-a", 4000)
    read = read_environment(
        {"RANK": "1", "WORLD_SIZE": "2", "AIOPG_URL": "aiopg://s:1", "AIOPG_GROUP": "g", "AIOPG_TIMEOUT": "2.5"}
    )
    assert read == Environment(1, 2, "", 0, "aiopg://s:1", "g", 2.5)


def test_what_is_missing_what_was_found_and_what_was_looked_for_is_said() -> None:
    """All of it, and nothing that is secret."""
    said = refusal({"JOB_COMPLETION_INDEX": "3", "MASTER_PORT": "7", "AIOPG_TOKEN": "hush"})
    first, what_to_do, found, looked_for = said.splitlines()
    assert first == "from_env() found no WORLD_SIZE, MASTER_ADDR in the environment"
    assert "completions of the Job" in what_to_do
    assert found.split(": ")[1] == "MASTER_PORT=7, JOB_COMPLETION_INDEX=3"
    for name in ("RANK", "AIOPG_URL", "AIOPG_PORT", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "SLURM_NTASKS"):
        assert name in looked_for
    assert "aiopg run" in refusal({})


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (SLURM | {"WORLD_SIZE": "4"}, ("WORLD_SIZE=4", "SLURM_STEP_NUM_TASKS=8")),
        (SLURM | {"RANK": "1"}, ("RANK=1", "SLURM_PROCID=5")),
        (TORCHRUN | {"RANK": "8"}, ("RANK=8", "WORLD_SIZE=8")),
        (KUBERNETES | ADDRESS | {"WORLD_SIZE": "2"}, ("JOB_COMPLETION_INDEX=2", "WORLD_SIZE=2")),
    ],
)
def test_what_contradicts_is_named(variables: dict[str, str], named: tuple[str, ...]) -> None:
    """Both variables, with what they say."""
    said = refusal(variables)
    assert "contradict" in said
    assert all(name in said for name in named)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (TORCHRUN | {"RANK": "one"}, "RANK .* 'one'"),
        (TORCHRUN | {"MASTER_PORT": "http"}, "MASTER_PORT .* 'http'"),
        (TORCHRUN | {"AIOPG_TIMEOUT": "soon"}, "AIOPG_TIMEOUT .* 'soon'"),
        (SLURM | {"SLURM_STEP_NODELIST": "gpu[07"}, r"SLURM_STEP_NODELIST .*'gpu\[07'.*MASTER_ADDR"),
        (SLURM | {"SLURM_JOB_ID": "x"}, "SLURM_JOB_ID .* 'x'"),
    ],
)
def test_what_makes_no_sense_is_named(variables: dict[str, str], named: str) -> None:
    """The variable, and what it says."""
    with pytest.raises(ValueError, match=named):
        read_environment(variables)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[07-09,12],login1", "gpu07"),
        ("tux[3,0-5]", "tux3"),
        ("rack[0-1]node[5,7]", "rack0node5"),
        ("a-[1-3]-ib,x", "a-1-ib"),
        ("bgl[123x456]", "bgl123"),
        ("10.0.0.1,10.0.0.2", "10.0.0.1"),
        ("n1.cluster.example", "n1.cluster.example"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    """As Slurm writes it, zeros and all."""
    assert first_host(nodes) == first


@pytest.mark.parametrize("nodes", ["", ",a", "[", "a[1", "a]", "a[],b", "a[1-2]]", "a;b"])
def test_what_is_no_list_of_hosts_is_refused(nodes: str) -> None:
    """Rather than that a wrong host is waited for."""
    with pytest.raises(ValueError, match="no list of hosts"):
        first_host(nodes)


async def test_what_is_passed_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank and world_size too: the first two of four ranks form a group of their own."""
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "AIOPG_URL": "memory://wins", "AIOPG_GROUP": "all"}.items():
        monkeypatch.setenv(name, value)
    async with await AsyncStatelessGroup.from_env(rank=0, world_size=1, group="own") as group:
        assert (group.rank, group.world_size, group.name) == (0, 1, "own")
