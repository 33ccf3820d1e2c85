"""The front door: names, docstrings, and errors that carry what they say."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest

import aiopg
from aiopg import errors
from aiopg.errors import AiopgError, Outcome

CLASSES = [value for name in aiopg.__all__ if inspect.isclass(value := getattr(aiopg, name))]
ERRORS = [cls for cls in CLASSES if issubclass(cls, AiopgError)]

EXAMPLES: list[AiopgError] = [
    errors.UsageError("it cannot be"),
    errors.GroupClosedError("it was closed"),
    errors.WrongThreadError("not from here"),
    errors.ForkError("of the parent"),
    errors.RankConflictError("trainers", 17, "pid 4711 on host-a"),
    errors.FencedError("trainers", 17, "pid 4711 on host-a"),
    errors.WorldSizeMismatchError("trainers", 17, 4),
    errors.CollectiveMismatchError("trainers", "t", 17, {0: "barrier", 1: "broadcast(src=0)"}),
    errors.KeyOperationError("add", "step", "it holds b'x'"),
    errors.CodecError("obj['a'][3]", "_thread.lock", "it has no encoding"),
    errors.PayloadTooLargeError(1234, 1000),
    errors.PeerError("it did not come"),
    errors.GroupTimeoutError("barrier", "trainers", "t", 17, [0, 1], [2, 3], 2.5),
    errors.KeyTimeoutError("barrier", ["start"], [], 2, 3, 2.5, 2.51),
    errors.QueueEmptyError("jobs"),
    errors.PeerLostError("trainers", [4, 17], "it left the group"),
    errors.GroupAbortedError("trainers", 17, "bad weights"),
    errors.StoreError("it is the store"),
    errors.StoreUnreachableError("aiopg://nowhere:1", "no route"),
    errors.AddressInUseError("aiopg://here:1", "a web server"),
    errors.StoreLostError("aiopg://here:1", "reset"),
    errors.AuthenticationError("aiopg://here:1", "the store refused"),
    errors.StoreFullError("groups", 17, "group 'trainers'"),
    errors.DataExpiredError("trainers", "message from rank 3"),
    errors.WatchGapError("jobs/", 17, 4711),
    errors.JournalCorruptError("/var/lib/aiopg/log-0000000000000001", 4711, "bad checksum"),
    errors.ProtocolError("a frame without end"),
    AiopgError("the root"),
]


def test_all_is_what_is_there() -> None:
    """`__all__` has no name too many, none twice, and none too few."""
    assert len(set(aiopg.__all__)) == len(aiopg.__all__)
    public = {n for n, value in vars(aiopg).items() if not n.startswith("_") and not inspect.ismodule(value)}
    assert public | {"__version__"} == set(aiopg.__all__)


def test_a_star_import_gives_exactly_that() -> None:
    """`from aiopg import *` binds the names of `__all__` and nothing else."""
    names: dict[str, Any] = {}
    exec("from aiopg import *", names)
    assert set(names) - {"__builtins__"} == set(aiopg.__all__)


def test_every_error_is_exported() -> None:
    """What can be raised can be caught by a name of the package."""
    defined = {cls for cls in vars(errors).values() if inspect.isclass(cls) and cls.__module__ == errors.__name__}
    assert defined == {*ERRORS, Outcome}
    assert set(errors.__all__) == {cls.__name__ for cls in defined}


def test_the_version_is_the_distribution_s() -> None:
    """`__version__` and the installed metadata agree."""
    assert aiopg.__version__ == importlib.metadata.version("aiopg-group")


def test_importing_the_package_brings_in_no_extra() -> None:
    """Extras stay extra, and what the codec knows of others' libraries it knows without them."""
    extras = ("numpy", "uvloop", "redis", "torch", "pydantic", "pydantic_core", "attr", "attrs")
    code = f"import aiopg, sys; print([m for m in {extras} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", [name for name in aiopg.__all__ if name != "__version__"])
def test_every_public_name_has_a_docstring(name: str) -> None:
    """Each exported name says in its own words what it is."""
    value = getattr(aiopg, name)
    assert value.__doc__
    if inspect.isclass(value):
        assert "__doc__" in vars(value)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_method_has_a_docstring(cls: type) -> None:
    """Each public method and property of an exported class has a docstring, or inherits one."""
    for name, value in inspect.getmembers(cls):
        function = inspect.isroutine(value) or isinstance(value, property)
        if not name.startswith("_") and function and not hasattr(Exception, name) and not hasattr(Outcome, name):
            assert inspect.getdoc(getattr(cls, name)), f"{cls.__name__}.{name}"


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """The drawing at the head of the package errors names every error, once, under its base."""
    drawn: dict[str, str] = {}
    bases: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if not (match := re.match(r"    ([ │├└─]*)(\w+Error)", line)):
            continue
        depth, name = len(match[1]), match[2]
        while bases and bases[-1][0] >= depth:
            bases.pop()
        assert name not in drawn
        drawn[name] = bases[-1][1] if bases else ""
        bases.append((depth, name))
    expected = {cls.__name__: cls.__bases__[0].__name__ for cls in ERRORS if cls is not AiopgError}
    assert drawn == {"AiopgError": "", **expected}


def test_some_errors_are_builtin_ones_too() -> None:
    """A deadline is a TimeoutError, an unreachable store a ConnectionError: old handlers go on working."""
    assert issubclass(errors.GroupTimeoutError, TimeoutError)
    assert issubclass(errors.StoreUnreachableError, ConnectionError)


def test_there_is_an_example_of_every_error() -> None:
    """The tests below leave none out."""
    assert {type(error) for error in EXAMPLES} == set(ERRORS)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("outcome", list(Outcome), ids=lambda outcome: outcome.name)
def test_an_error_survives_pickle_and_copy(error: AiopgError, outcome: Outcome) -> None:
    """Type, text, fields and outcome cross a process border and a copy."""
    error = copy.copy(error)
    error.outcome = outcome
    for clone in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(clone) is type(error)
        assert (str(clone), clone.fields(), clone.outcome) == (str(error), error.fields(), outcome)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_s_text_has_what_its_fields_say(error: AiopgError) -> None:
    """Whoever reads only the text of an error misses nothing."""
    for name, value in error.fields().items():
        parts = value if isinstance(value, tuple) else value.items() if isinstance(value, dict) else (value,)
        for part in parts:
            words = part if isinstance(part, tuple) else (part,)
            assert all(str(word) in str(error) for word in words), name


def test_many_ranks_are_told_in_few_words() -> None:
    """A thousand missing ranks make one line, not a thousand words."""
    error = errors.GroupTimeoutError("barrier", "g", 0, 1, range(1, 1000), [0, *range(1001, 1050, 2)], 1.0)
    assert "arrived: 1-999" in str(error)
    assert "and 16 more" in str(error)
    unknown = errors.GroupTimeoutError("barrier", "g", 0, 1, None, None, 1.0)
    assert (unknown.arrived, unknown.missing) == (None, None)
    assert "did not say who is missing" in str(unknown)
