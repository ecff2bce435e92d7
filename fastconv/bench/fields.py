"""Types of what is read back from a file of results, which people edit: what was written is taken, all else is an error."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


def require(fields: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """ValueError names the first field that is not of its type, what it is, and what would be taken. Others are let through."""
    for name, hint in hints.items():
        if name in fields and not fits(fields[name], hint):
            raise ValueError(f"{name} is {short(fields[name])}, but must be {words(hint)}")


def hints_of(record: type) -> dict[str, Any]:
    """Field -> type of a dataclass."""
    return typing.get_type_hints(record)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the type; a dataclass is an object with all its fields."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, arguments[1]) for one in value.values())
    if origin is list:
        return isinstance(value, list) and all(fits(one, arguments[0]) for one in value)
    if dataclasses.is_dataclass(hint):
        inner = hints_of(hint)
        return isinstance(value, dict) and set(value) == set(inner) and all(fits(value[n], inner[n]) for n in inner)
    if hint in (int, float):
        number = isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, hint)


def words(hint: Any) -> str:
    """A type as a person would say it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(one) for one in arguments)
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is dict:
        return "an object" if arguments[1] is Any else f"an object whose values are each {words(arguments[1])}"
    if origin is list:
        return f"a list whose entries are each {words(arguments[0])}"
    if dataclasses.is_dataclass(hint):
        return f"an object of {', '.join(hints_of(hint))}, as `fastconv bench` writes it"
    plain = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false", type(None): "null"}
    return plain[hint]


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
