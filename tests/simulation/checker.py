"""The checker: what was wrong in a run. It knows what aiopg promises, and nothing of how it is made."""

from __future__ import annotations

from tests.simulation.check_errors import check_ends, check_errors
from tests.simulation.check_keys import check_keys
from tests.simulation.check_members import check_fences, check_members
from tests.simulation.check_messages import check_messages
from tests.simulation.check_rounds import check_rounds, number_calls
from tests.simulation.view import View

__all__ = ["check"]


def check(view: View) -> list[str]:
    """What was wrong, one line each."""
    numbered = number_calls(view)
    return [
        *check_ends(view),
        *check_messages(view),
        *check_rounds(view, numbered),
        *check_errors(view),
        *check_members(view),
        *check_fences(view),
        *check_keys(view),
    ]
