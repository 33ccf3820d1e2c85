"""Fetch the peers into `benchmarks/.peers/`, where git does not look, and build the floor there.

They get a virtual environment of their own, so that aiopg's stays what a user would install; matplotlib, which draws
the plots, is in it too. pip does the fetching by package name, with whatever index and options the user's pip is set
up for. Programs that pip has not (`mpirun`, `redis-server`, `cc`) are found on the PATH or not at all.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".peers"

# Behind torch, what `vllm/distributed/utils.py` imports, directly or through the modules that it imports.
TORCH = ("torch==2.13.0", "psutil", "urllib3", "regex", "pyzmq", "numpy")
MPI4PY = ("mpi4py>=4", "numpy")
REDIS = ("redis>=5",)
PLOTS = ("matplotlib>=3.8",)
PROGRAMS = {
    "mpirun": " (Debian: apt-get install openmpi-bin libopenmpi-dev)",
    "redis-server": " (Debian: apt-get install redis-server)",
    "cc": " (Debian: apt-get install gcc)",
}
VENV_DIR = FOLDER / "venv"
PYTHON = VENV_DIR / "bin" / "python"

VLLM_VERSION = "0.33.0"
VLLM_DIR = FOLDER / f"vllm-{VLLM_VERSION}"

FLOOR_SOURCE = Path(__file__).resolve().parent / "floor.c"
FLOOR_DIR = FOLDER / "floor"
FLOOR_SERVER = FLOOR_DIR / "floor"
FLOOR_LIBRARY = FLOOR_DIR / "floor.so"


class FetchError(Exception):
    """A peer could not be fetched."""


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", *arguments]
    # Standard output is the table's, so pip's goes where the progress goes.
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise FetchError(f"this failed, see above: {' '.join(command)}")


def _make_venv() -> None:
    if not PYTHON.exists():
        _say(f"making an environment for the peers in {VENV_DIR} (once)")
        venv.create(VENV_DIR, clear=True, with_pip=True)


def _install(name: str, *packages: str) -> None:
    """Install packages that belong to the peer `name`, unless these very ones were installed before."""
    _make_venv()
    done = VENV_DIR / f"has-{name}"
    wanted = " ".join(packages)
    if done.exists() and done.read_text() == wanted:
        return
    _say(f"installing {wanted} in {VENV_DIR} (once)")
    _pip("install", "--quiet", *packages)
    done.write_text(wanted)


def _fetch_vllm() -> None:
    if VLLM_DIR.exists():
        return
    _make_venv()
    _say(f"fetching the Python files of vLLM {VLLM_VERSION} into {VLLM_DIR} (once; the wheel has 340 MB)")
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        wheels = Path(scratch) / "wheels"
        files = Path(scratch) / "files"
        _pip(
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            f"--dest={wheels}",
            f"vllm=={VLLM_VERSION}",
        )
        for wheel in wheels.glob("*.whl"):
            _unpack(wheel, files)
        shutil.move(files, VLLM_DIR)  # last, so that a fetch that was cut short is done again


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("vllm/") and name.endswith(".py")]
        archive.extractall(folder, names)


def _build_floor() -> None:
    """Compile floor.c, unless this very text was compiled before."""
    text = FLOOR_SOURCE.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    done = FLOOR_DIR / "built-from"
    if done.exists() and done.read_text() == digest:
        return
    FLOOR_DIR.mkdir(exist_ok=True)
    for target, options in ((FLOOR_SERVER, ()), (FLOOR_LIBRARY, ("-shared", "-fPIC"))):
        command = ["cc", "-O2", *options, "-o", str(target), str(FLOOR_SOURCE)]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            raise FetchError(f"this failed, see above: {' '.join(command)}")
    done.write_text(digest)


_FETCH: dict[str, Callable[[], None]] = {
    "torch": lambda: _install("torch", *TORCH),
    "vllm": _fetch_vllm,
    "mpi4py": lambda: _install("mpi4py", *MPI4PY),
    "redis": lambda: _install("redis", *REDIS),
    "plots": lambda: _install("plots", *PLOTS),
    "floor": _build_floor,
}


def fetch(names: set[str]) -> None:
    """Make the named peers ready; those that already are take no time.

    Raises:
        FetchError: pip could not find or fetch a package, or the compiler failed.
    """
    FOLDER.mkdir(exist_ok=True)
    for name in sorted(names):
        _FETCH[name]()


def missing(program: str) -> str | None:
    """Return why a contestant that needs this program cannot run here; None where it can."""
    if shutil.which(program) is not None:
        return None
    return f"{program} is not installed{PROGRAMS.get(program, '')}"


def redis_version() -> str:
    """Return the version of the redis-server on the PATH."""
    told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", told)
    return found[1] if found else told.strip()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
