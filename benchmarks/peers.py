"""Fetch the peers: torch and vLLM's Python files, into `benchmarks/.peers/`, where git does not look.

They get a virtual environment of their own, so that aiopg's stays what a user would install. pip does the
fetching by package name, with whatever index and options the user's pip is set up for.
"""

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".peers"

TORCH = "torch==2.13.0"
# What `vllm/distributed/utils.py` imports, directly or through the modules that it imports.
HELPERS = ("psutil", "urllib3", "regex", "pyzmq", "numpy")
VENV_DIR = FOLDER / "venv"
PYTHON = VENV_DIR / "bin" / "python"

VLLM_VERSION = "0.33.0"
VLLM_DIR = FOLDER / f"vllm-{VLLM_VERSION}"


class FetchError(Exception):
    """A peer could not be fetched."""


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", *arguments]
    # Standard output is the table's, so pip's goes where the progress goes.
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise FetchError(f"this failed, see above: {' '.join(command)}")


def _fetch_venv() -> None:
    done = VENV_DIR / f"has-{TORCH}"
    if done.exists():
        return
    _say(f"making an environment with {TORCH} in {VENV_DIR} (once)")
    venv.create(VENV_DIR, clear=True, with_pip=True)
    _pip("install", "--quiet", TORCH, *HELPERS)
    done.touch()


def _fetch_vllm() -> None:
    if VLLM_DIR.exists():
        return
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


_FETCH: dict[str, Callable[[], None]] = {"venv": _fetch_venv, "vllm": _fetch_vllm}


def fetch(names: set[str]) -> None:
    """Make the named peers ready; those that already are take no time.

    Raises:
        FetchError: pip could not find or fetch a package.
    """
    FOLDER.mkdir(exist_ok=True)
    for name, fetch_one in _FETCH.items():  # in this order: pip comes with the environment
        if name in names:
            fetch_one()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
