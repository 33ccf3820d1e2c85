"""attrs classes and pydantic models: sent as their fields, by name, and made by their own rules.

What a class checks when it is made, it checks of what came. What it converts then (attrs' converters, pydantic's
"before" validators) was converted once already when it was sent, and should come out of it as it is.

pydantic is told to be strict. Otherwise it would make of a value whatever a field could be, and of
Decimal("1E+999999999") an int of a billion digits.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

from aiopg.codec._conversion import Conversion, checked
from aiopg.codec._path import Step, full_name

__all__ = ["attrs_conversion", "dataclass_maker", "pydantic_conversion"]

_TOLD = 5
"""As many of pydantic's errors are repeated."""


def attrs_conversion(cls: Any) -> Conversion | None:
    """The conversion for an attrs class whose `__init__` takes its fields; None for any other class."""
    attributes = getattr(cls, "__attrs_attrs__", None)
    if attributes is None:
        return None
    names = {attribute.name for attribute in attributes}
    # Before attrs 22.2 an attribute had no alias of its own.
    arguments = {a.name: getattr(a, "alias", None) or a.name.lstrip("_") for a in attributes if a.init}
    if inspect.signature(cls).parameters.keys() != set(arguments.values()):
        return None  # an __init__ of its own: what it needs cannot be told from the fields
    computed = [attribute for attribute in attributes if not attribute.init]

    def encode(value: object) -> object:
        return {attribute.name: getattr(value, attribute.name) for attribute in attributes}

    def decode(content: object) -> object:
        values = checked(content, names)
        instance: object = cls(**{argument: values[name] for name, argument in arguments.items()})
        for attribute in computed:
            value = values[attribute.name]
            if attribute.validator is not None:
                attribute.validator(instance, attribute, value)
            object.__setattr__(instance, attribute.name, value)
        return instance

    return Conversion(encode, decode, by_fields=True)


def pydantic_conversion(cls: Any) -> Conversion | None:
    """The conversion for a model of pydantic 2; None for any other class.

    Raises:
        ValueError: what its fields hold is not what they are validated from.
    """
    base: Any = getattr(sys.modules.get("pydantic.main"), "BaseModel", None)
    if base is None or not issubclass(cls, base) or not hasattr(base, "model_validate"):
        return None
    if cls.model_config.get("use_enum_values"):
        raise ValueError(
            f"{full_name(cls)} has use_enum_values=True, and keeps values that its own fields would refuse: "
            "give encode= and decode="
        )
    by_name = _by_name(cls, base)

    def validated(content: object) -> object:
        return _strictly(cls.model_validate, content, **by_name)

    if cls.__pydantic_root_model__:
        return Conversion(lambda value: value.root, validated, by_fields=False)
    names = frozenset(cls.model_fields)
    others = cls.model_config.get("extra") == "allow"

    def encode(value: Any) -> object:
        return {name: getattr(value, name) for name in names} | (value.model_extra or {})

    return Conversion(encode, lambda content: validated(checked(content, names, others=others)), by_fields=True)


def dataclass_maker(cls: Any) -> Callable[..., object]:
    """What makes an instance of a dataclass of its fields: the class itself, unless it is one of pydantic's."""
    if "__pydantic_validator__" not in vars(cls):
        maker: Callable[..., object] = cls
        return maker
    core: Any = sys.modules["pydantic_core"]

    def make(**values: object) -> object:
        # As its __init__ does, but that is not strict.
        instance: object = object.__new__(cls)
        _strictly(cls.__pydantic_validator__.validate_python, core.ArgsKwargs((), values), self_instance=instance)
        return instance

    return make


def _strictly(validate: Callable[..., object], content: object, **how: object) -> object:
    try:
        return validate(content, strict=True, **how)
    except sys.modules["pydantic_core"].ValidationError as error:
        raise ValueError(_told(error)) from error


def _by_name(cls: Any, base: Any) -> dict[str, bool]:
    """What `model_validate` is to be told, so that it takes fields by their names."""
    if "by_name" in inspect.signature(base.model_validate).parameters:
        return {"by_name": True, "by_alias": False}
    aliases = any(field.validation_alias is not None for field in cls.model_fields.values())
    if aliases and not cls.model_config.get("populate_by_name"):
        raise ValueError(
            f"{full_name(cls)} has fields with aliases: set populate_by_name=True in its model_config, use pydantic "
            "2.11 or later, or give encode= and decode="
        )
    return {}


def _told(error: Any) -> str:
    """Where pydantic found what, without what was sent."""
    found: list[str] = []
    for one in islice(error.errors(include_url=False, include_context=False, include_input=False), _TOLD):
        path = Step(None, "")
        for depth, part in enumerate(one["loc"]):
            path = path.item(part) if depth or type(part) is not str else path.field(part)
        found.append(f"{path}: {one['msg']}" if one["loc"] else one["msg"])
    count: int = error.error_count()
    return "; ".join(found) + (f"; and {count - _TOLD} more" if count > _TOLD else "")
