"""What the tests of the examples share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from .programs import Program, StartProgram


@pytest.fixture
def start() -> Iterator[StartProgram]:
    """Starts programs; ends what the test leaves."""
    with ExitStack() as programs:
        yield lambda *arguments, **options: programs.enter_context(closing(Program(*arguments, **options)))
