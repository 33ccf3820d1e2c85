"""Garbage collection in a process that is a store and nothing else."""

from __future__ import annotations

import gc

__all__ = ["collect_seldom"]

YOUNG_OBJECTS = 50_000
"""So many objects more than before let Python look for cycles among them, which takes 3 ms. Its own number is 700."""


def collect_seldom() -> None:
    """Look for cycles of garbage seldom. For a process that is a store and nothing else.

    A round of ten thousand ranks makes some ten thousand objects and frees them all when it is done, without cycles; to
    look through them again and again meanwhile took a quarter of the store's time. What was imported so far stays for
    good and is not looked at at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
