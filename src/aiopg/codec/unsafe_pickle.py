"""A codec that pickles. **Whoever can send to a rank that uses it runs code of his choice in that rank.**

Give it by name to every rank of a group, as `codec=aiopg.codec.unsafe_pickle`: this module is the codec. Nothing else
in the package unpickles, and nothing here is imported before it is asked for. Where a token or TLS keeps strangers out
it is still true that one broken rank breaks all: where it can be done, register classes with `register_type` instead.

A payload begins with a mark. So a rank that uses another codec refuses it with a CodecError that says so, and this
codec refuses a payload of any other: that the ranks do not agree is found with the first object.

The first use in a process gives an `UnsafePickleWarning`.
"""

from __future__ import annotations

import pickle
import warnings

from aiopg.codec._marks import PICKLE_MARK
from aiopg.codec._path import ROOT
from aiopg.codec._protocol import Buffer
from aiopg.errors import CodecError

__all__ = ["UnsafePickleWarning", "decode", "encode", "name"]

name = "unsafe_pickle"

# What objects raise that cannot be pickled, and what nonsense raises when it is unpickled. Code that a pickle runs may
# raise anything: the rest passes.
_REFUSALS = (
    pickle.PickleError, ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError,
    MemoryError, NotImplementedError, RecursionError, TypeError, ValueError,
)  # fmt: skip

_warned = False


class UnsafePickleWarning(UserWarning):
    """This process runs code that its peers choose, because it unpickles what they send."""


def encode(obj: object) -> bytes:
    """The pickle of an object, marked.

    Raises:
        CodecError: it cannot be pickled.
    """
    _warn_once()
    try:
        return PICKLE_MARK + pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
    except _REFUSALS as error:
        raise ROOT.refuse(obj, f"it cannot be pickled: {error or type(error).__name__}") from error


def decode(payload: Buffer) -> object:
    """The object of a marked pickle. **Runs whatever code the sender chose.**

    Raises:
        CodecError: it is a payload of another codec (then nothing was run), or no whole pickle.
    """
    _warn_once()
    view = memoryview(payload)
    if view[: len(PICKLE_MARK)] != PICKLE_MARK:
        reason = (
            "this rank uses aiopg.codec.unsafe_pickle and the peer does not; it must be asked for by name on every "
            "rank: give all ranks the same codec="
        )
        raise CodecError("payload", "another codec", reason)
    try:
        value: object = pickle.loads(view[len(PICKLE_MARK) :])
    except _REFUSALS as error:
        reason = f"it cannot be unpickled: {type(error).__name__}: {error}"
        raise CodecError("payload", "pickle", reason) from error
    return value


def _warn_once() -> None:
    global _warned
    if _warned:
        return
    text = "aiopg.codec.unsafe_pickle runs whatever code a peer puts into a message; use it among trusted ranks only"
    warnings.warn(text, UnsafePickleWarning, stacklevel=3)
    # Only now: where warnings are errors, every use is one.
    _warned = True
