"""Tools for the tests of programs that use aiopg."""

from __future__ import annotations

from aiopg.testing.proxy import FaultProxy

__all__ = ["FaultProxy"]
