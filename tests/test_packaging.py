"""What is installed: nothing but what is needed, typed, and clear about what is not there.

The tests of an installation make a virtual environment and run pip, which asks its index for what it does not have:
AIOPG_TEST_OFFLINE=1 leaves them out.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
DOWNSTREAM = sorted((ROOT / "tests/downstream").glob("[!_]*.py"))

# ---------------------------------------------------------------------------------------------- a public name

PUBLIC = ["aiopg", "aiopg.codec", "aiopg.testing"]


def names_used(program: str) -> set[str]:
    """The names of aiopg that a program uses, as `module.name`: not those that it only imports."""
    modules: dict[str, str] = {}
    names: dict[str, str] = {}
    used: set[str] = set()
    for node in ast.walk(tree := ast.parse(program)):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (module := modules.get(ast.unparse(node.value))):
            used.add(f"{module}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in names:
            used.add(names[node.id])
    return used


def value_of(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    value: object = getattr(importlib.import_module(module), attribute)
    return value


def test_every_public_name_is_used_downstream() -> None:
    """A name that is added must be used in one of tests/downstream/*.py, in a way that type checkers see."""
    used = {id(value_of(name)) for path in DOWNSTREAM for name in names_used(path.read_text())}
    public = {f"{module}.{name}" for module in PUBLIC for name in importlib.import_module(module).__all__}
    missing = {name for name in public if id(value_of(name)) not in used}  # by either name, where a thing has two
    assert missing == set(), "use these names in tests/downstream/"


def test_a_name_that_is_only_imported_does_not_count() -> None:
    """Uses are found by `import aiopg`, by `from aiopg import`, under other names too."""
    program = "import aiopg.codec as c, aiopg\nfrom aiopg import Tls, Token as T\nprint(T, aiopg.Limits, c.is_large)"
    assert names_used(program) == {"aiopg.Token", "aiopg.Limits", "aiopg.codec.is_large"}


@pytest.mark.parametrize("program", DOWNSTREAM, ids=lambda path: path.stem)
def test_the_programs_downstream_run(program: Path) -> None:
    """As they stand, warnings as errors."""
    subprocess.run([sys.executable, "-W", "error", program], check=True, timeout=50, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------------------------------- what is not there


class Without(NamedTuple):
    """What a program says where a package is missing."""

    package: str
    program: str
    says: str
    """In its standard error, or its output where it ends well."""
    code: int = 0


TORCH_DTYPE = next(
    vector["payload"]
    for vector in json.loads((ROOT / "tests/vectors/payloads.json").read_text())["encodes"]
    if vector["name"] == "a torch dtype"
)

WITHOUT = [
    Without("uvloop", "from aiopg.cli import main; sys.exit(main(['token']))", ""),
    Without("uvloop", "from aiopg.loops import fast_loop; print(fast_loop())", "None\n"),
    Without(
        "cryptography",
        "from aiopg.cli import main; sys.exit(main(['certs', 'certificates']))",
        "aiopg certs: this needs the package cryptography: pip install 'aiopg-group[certs]'\n",
        2,
    ),
    Without(
        "rich",
        "from aiopg.cli import main; sys.exit(main(['top', 'aiopg://127.0.0.1:9']))",
        "aiopg top: this needs the package rich: pip install 'aiopg-group[top]'\n",
        2,
    ),
    *(
        Without(
            package,
            "from aiopg.cli import main; sys.exit(main(['serve', '--http', '0']))",
            f"aiopg serve: --http needs {package}: pip install 'aiopg-group[dashboard]'\n",
            2,
        )
        for package in ("starlette", "uvicorn", "prometheus_client")
    ),
    Without("opentelemetry", "from aiopg.telemetry import find_telemetry; print(find_telemetry())", "None\n"),
    Without("pytest", "import pytest_aiopg", "run: pip install 'aiopg-group[pytest]'\n", 1),
    Without("pytest", "import aiopg.testing; print('fine')", "fine\n"),
    Without(
        "numpy",
        "from aiopg import MsgpackCodec; MsgpackCodec().decode(bytes.fromhex(sys.argv[1]))",
        "before receiving such, import numpy (pip install numpy)\n",
        1,
    ),
    Without(
        "torch",
        "from aiopg import MsgpackCodec; MsgpackCodec().decode(bytes.fromhex(sys.argv[2]))",
        "before receiving such, import torch (pip install torch)\n",
        1,
    ),
    Without(
        "torch",
        "import os, aiopg; os.environ['TORCHELASTIC_USE_AGENT_STORE'] = 'True'; "
        "os.environ['MASTER_ADDR'] = '127.0.0.1'; "
        "os.environ['MASTER_PORT'] = '9'; aiopg.StatelessGroup.create('127.0.0.1', 9, 0, 2, store_timeout=5)",
        "pip install 'aiopg-group[torch]'; or set AIOPG_PORT to another port\n",
        1,
    ),
    Without(
        "torch",
        "from aiopg import Store; from aiopg.integrations.torch import as_store; as_store(Store.connect('memory://x'))",
        "run: pip install 'aiopg-group[torch]'\n",
        1,
    ),
    Without(
        "redis",
        "import asyncio; from aiopg.stores import open_link; asyncio.run(open_link('redis://h'))",
        "run: pip install 'aiopg-group[redis]'\n",
        1,
    ),
    Without(
        "grpc",
        "import asyncio; from aiopg.stores import open_link; asyncio.run(open_link('etcd://127.0.0.1:9'))",
        "run: pip install 'aiopg-group[etcd]'\n",
        1,
    ),
    Without(
        "vllm",
        "from aiopg.integrations.vllm import stateless_group; stateless_group('127.0.0.1', 9, 0, 1)",
        "run: pip install 'aiopg-group[vllm]'\n",
        1,
    ),
]
"""Each package that the sources import and that is not always installed, at each place where that is noticed."""


@pytest.mark.parametrize("case", WITHOUT, ids=lambda case: f"{case.package}: {case.program[:40]}")
def test_without_a_package_it_is_said_what_to_install(case: Without, tmp_path: Path) -> None:
    """uvloop is optional and its absence silent; of all else the exact line to install it is told."""
    numpy = importlib.import_module("numpy")
    payload = bytes(importlib.import_module("aiopg").MsgpackCodec().encode(numpy.arange(3)))
    program = f"import sys; sys.modules[{case.package!r}] = None; {case.program}"
    command = [sys.executable, "-W", "error", "-c", program, payload.hex(), TORCH_DTYPE]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50)
    assert ran.returncode == case.code, ran.stderr
    if case.code:
        assert ran.stderr.endswith(case.says)
        assert ran.stdout == ""
    else:
        assert ran.stdout == case.says or not case.says
        assert ran.stderr == ""
    assert list(tmp_path.iterdir()) == []


ALWAYS = {"aiopg", "anyio", "msgpack"}


def packages_imported() -> set[str]:
    """All packages beside the standard library that the sources import, wherever in a file, also by name."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module or "")
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                found |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)


def test_every_optional_package_is_in_the_table() -> None:
    """A new import of a package that may be missing needs a case of what is said then."""
    assert packages_imported() - ALWAYS == {case.package for case in WITHOUT}


# ------------------------------------------------------------------------------------------- an installation

INSTALLS = pytest.mark.skipif(
    os.environ.get("AIOPG_TEST_OFFLINE") == "1", reason="WHAT PIP INSTALLS IS NOT TESTED: AIOPG_TEST_OFFLINE=1"
)

NEEDED = {"aiopg-group", "anyio", "msgpack", "idna", "sniffio", "typing-extensions"}
"""Our distribution, what it needs, and what that may need, depending on its version and on Python's."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an empty environment in which `pip install .` was run, and nothing else."""
    place = tmp_path_factory.mktemp("installed")
    # Of a copy, as the build writes beside the sources.
    copy = shutil.copytree(ROOT, place / "source", ignore=shutil.ignore_patterns(".*", "__pycache__", "benchmarks"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    python = place / "venv/bin/python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*command, "--disable-pip-version-check", str(copy)], check=True, env=outside())
    return python


def outside() -> dict[str, str]:
    """An environment that does not lead to the sources."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}


@INSTALLS
@pytest.mark.timeout(300)
def test_pip_installs_what_is_needed_and_nothing_more(installed: Path) -> None:
    """anyio, msgpack and what they need."""
    code = "import importlib.metadata as m; print(*(d.name.lower().replace('_', '-') for d in m.distributions()))"
    ran = subprocess.run([installed, "-c", code], capture_output=True, text=True, check=True, env=outside())
    distributions = set(ran.stdout.split())
    assert {"aiopg-group", "anyio", "msgpack"} <= distributions <= NEEDED


@INSTALLS
@pytest.mark.timeout(300)
def test_the_plugin_is_installed(installed: Path) -> None:
    """pytest finds it by its entry point; where there is no pytest, it says so."""
    code = "import importlib.metadata as m; (plugin,) = m.entry_points(group='pytest11', name='aiopg'); plugin.load()"
    ran = subprocess.run([installed, "-c", code], capture_output=True, text=True, check=False, env=outside())
    assert ran.stderr.endswith("run: pip install 'aiopg-group[pytest]'\n")


@INSTALLS
@pytest.mark.timeout(300)
def test_the_command_and_the_programs_run_where_nothing_else_is_installed(installed: Path, tmp_path: Path) -> None:
    """The command `aiopg`; and the programs of tests/downstream, so that no extra is needed for any public name."""
    subprocess.run([installed.parent / "aiopg", "token"], check=True, stdout=subprocess.DEVNULL, env=outside())
    for path in DOWNSTREAM:
        program = shutil.copy(path, tmp_path)
        subprocess.run([installed, program], check=True, stdout=subprocess.DEVNULL, cwd=tmp_path, env=outside())


@INSTALLS
@pytest.mark.timeout(300)
def test_mypy_knows_the_types_of_what_is_installed(installed: Path, tmp_path: Path) -> None:
    """`mypy --strict` passes on a program that uses every public name, and sees a mistake: py.typed is installed."""
    for path in DOWNSTREAM:
        shutil.copy(path, tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", str(installed)]
    ran = subprocess.run(
        [*command, *sorted(path.name for path in DOWNSTREAM)],
        cwd=tmp_path, env=outside(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    (tmp_path / "wrong.py").write_text("import aiopg\n\naiopg.StatelessGroup.connect(7, rank='0', world_size=2)\n")
    ran = subprocess.run(
        [*command, "wrong.py"], cwd=tmp_path, env=outside(), capture_output=True, text=True, check=False
    )
    assert ran.stdout.count("[arg-type]") == 2, ran.stdout
