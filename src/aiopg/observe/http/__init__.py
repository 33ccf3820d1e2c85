"""The HTTP side port of `aiopg serve --http`: a page for people, metrics and JSON for their tools.

It runs in a child process (`child`) and not in the store's: what is written for browsers then never holds the store's
interpreter, and if it fails, the store does not. The child reads the store through a socket that it was born with
(`_door`): it is no session, nothing of it is in the journal, and it needs neither token nor certificate there. Whoever
looks must have a token of the store all the same (`_access`), and sees the groups that this token is for.

This module and `_side_port` need nothing that is not installed with aiopg; the others need the extra `dashboard`.
"""

from __future__ import annotations

from aiopg.observe.http._side_port import HttpAddress, SidePort

__all__ = ["HttpAddress", "SidePort"]
