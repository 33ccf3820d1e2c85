"""The blocking group keeps step with the asynchronous one."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, StatelessGroup
from aiopg.stores import open_link

PUBLIC = sorted(name for name in dir(AsyncStatelessGroup) if not name.startswith("_"))
METHODS = [name for name in PUBLIC if callable(getattr(AsyncStatelessGroup, name))]
OTHER_NAMES = {"send_obj": "send", "recv_obj": "recv", "broadcast_obj": "broadcast", "all_gather_obj": "all_gather"}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each parameter."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_both_groups_have_the_same_public_names() -> None:
    """What is added to one class is added to the other; the attributes of one are properties of the other."""
    attributes = {name for name in vars(_made()) if not name.startswith("_")}
    assert {name for name in dir(StatelessGroup) if not name.startswith("_")} == {*PUBLIC, *attributes}


def _made() -> AsyncStatelessGroup:
    async def make() -> AsyncStatelessGroup:
        return AsyncStatelessGroup(0, 1, await open_link("memory://facade"))

    return asyncio.run(make())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_same_in_both_groups(name: str) -> None:
    """Parameters, their kinds and their defaults are the same; nothing is left to be awaited."""
    ours = getattr(StatelessGroup, name)
    assert parameters(ours) == parameters(getattr(AsyncStatelessGroup, name))
    assert not inspect.iscoroutinefunction(ours)


def test_the_constructors_take_the_same() -> None:
    """The blocking group takes a store's URL where the other takes a store in hand, and all else alike."""
    assert parameters(StatelessGroup) == parameters(AsyncStatelessGroup)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_tells_where_its_rules_stand(name: str) -> None:
    """The rules are written once, at the asynchronous method of that name."""
    assert getattr(AsyncStatelessGroup, name).__doc__
    documented = f"See `AsyncStatelessGroup.{OTHER_NAMES.get(name, name)}`"
    assert (getattr(StatelessGroup, name).__doc__ or "").startswith(documented)


@pytest.mark.parametrize(("name", "result"), [("all_gather", "list[Any]"), ("send", "None"), ("pending", None)])
def test_a_method_is_annotated_with_what_it_returns(name: str, result: str | None) -> None:
    """The blocking call returns what awaiting the other gives."""
    ours, theirs = (getattr(cls, name).__annotations__["return"] for cls in (StatelessGroup, AsyncStatelessGroup))
    assert ours == theirs
    assert result in (None, ours)


def test_an_attribute_is_the_inner_group_s(pair: list[StatelessGroup]) -> None:
    """Every attribute of the asynchronous group is read through."""
    for name in (name for name in vars(_made()) if not name.startswith("_") and name != "store"):
        assert getattr(pair[0], name) == getattr(pair[0]._group, name)
    assert pair[0].store._store is pair[0]._group.store
