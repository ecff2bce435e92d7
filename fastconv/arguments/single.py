"""One argument at a time: numbers, pairs of them, and words."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from fastconv.dispatch import BACKENDS
from fastconv.problem import ACTIVATIONS, PADDING_MODES

Pair = tuple[int, int]
IntOrPair = int | Sequence[int]


def _in_range(function: str, name: str, value: int, whole: Any) -> int:
    """The int itself where PyTorch can hold it; ValueError as PyTorch raises it."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(
            f"{function}(): {name} is {whole}; Overflow when unpacking long long, it must be between -2**63 and 2**63 - 1"
        )
    return value


def integer(function: str, name: str, value: Any, whole: Any, accepted: str = "an int or a tuple of two ints") -> int:
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return _in_range(function, name, value, whole)
    try:
        if isinstance(value, bool):
            raise TypeError
        return _in_range(function, name, operator.index(value), whole)  # numpy's integers, tensors of one integer
    except TypeError:
        raise TypeError(
            f"{function}(): {name} is {whole!r} of type {type(whole).__name__}, but must be {accepted}"
        ) from None


def pair(function: str, name: str, value: IntOrPair) -> Pair:
    """(vertical, horizontal) of an int or of one or two of them."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is int and type(value[1]) is int:
        return _in_range(function, name, value[0], value), _in_range(function, name, value[1], value)
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        number = integer(function, name, value, value)
        return number, number
    numbers = tuple(integer(function, name, number, value) for number in value)
    if len(numbers) == 1:
        return numbers * 2
    if len(numbers) != 2:
        raise RuntimeError(
            f"{function}(): {name} is {value!r}; expected {name} to be a single integer value or a list of 2 values to match "
            "the convolution dimensions (vertical, horizontal)"
        )
    return numbers


def positive_pair(function: str, name: str, value: IntOrPair, phrase: str = "") -> Pair:
    numbers = pair(function, name, value)
    if numbers[0] < 1 or numbers[1] < 1:
        phrase = phrase or f"non-positive {name} is not supported"
        raise RuntimeError(f"{function}(): {name} is {value}; {phrase}, it must be 1 or more")
    return numbers


def not_negative_pair(function: str, name: str, value: IntOrPair) -> Pair:
    numbers = pair(function, name, value)
    if numbers[0] < 0 or numbers[1] < 0:
        raise RuntimeError(f"{function}(): {name} is {value}; negative {name} is not supported, it must be 0 or more")
    return numbers


def group_count(function: str, value: int) -> int:
    value = integer(function, "groups", value, value, "an int")
    if value < 1:
        raise RuntimeError(
            f"{function}(): groups is {value}; non-positive groups is not supported, it must be 1 or more"
        )
    return value


def flag(function: str, name: str, value: bool) -> bool:
    """PyTorch takes a bool here, and not what is merely true or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{function}(): {name} is {value!r}, but must be bool, not {type(value).__name__}")
    return value


def _one_of(function: str, name: str, value: Any, accepted: Sequence[str], otherwise: str = "") -> str:
    if value not in accepted:
        # A dtype or a number here is a mistake of kind, a wrong word one of value; PyTorch's own modules raise ValueError.
        error = ValueError if isinstance(value, str) else TypeError
        words = ", ".join(map(repr, accepted))
        raise error(f"{function}(): {name} is {value!r}, but must be one of {words}{otherwise}")
    return value


def padding_mode(function: str, value: str) -> str:
    return _one_of(function, "padding_mode", value, PADDING_MODES)


def activation(function: str, value: str | None) -> str:
    return "identity" if value is None else _one_of(function, "activation", value, ACTIVATIONS, " or None")


def backend(function: str, value: str | None) -> str:
    return "auto" if value is None else _one_of(function, "backend", value, BACKENDS, " or None")
