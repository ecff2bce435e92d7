"""Makes a failing problem smaller while it goes on failing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from tests.support.cases import Case


def shrink(case: Case, fails: Callable[[Case], bool], seconds: float = 10.0) -> Case:
    """The smallest problem reached by single steps that each keep the failure. Stops when time is up."""
    end = time.monotonic() + seconds
    smaller = True
    while smaller and time.monotonic() < end:
        smaller = False
        for candidate in _steps(case):
            if time.monotonic() > end:
                break
            if _is_possible(candidate) and fails(candidate):
                case, smaller = candidate, True
                break
    return case


def _steps(case: Case) -> Iterator[Case]:
    """Simplifications of one property each, the ones that simplify most first."""
    defaults = {field.name: field.default for field in dataclasses.fields(case)[1:]}
    fixed = ("backend", "device", "dtype", "seed", "n", "c", "h", "w", "k", "r", "s", "groups")
    for name, default in defaults.items():
        if name not in fixed and getattr(case, name) != default:
            yield dataclasses.replace(case, **{name: default})
    if case.groups > 1:
        yield dataclasses.replace(case, groups=1, c=case.c // case.groups, k=max(1, case.k // case.groups))
    for name in ("n", "h", "w", "r", "s"):
        value = getattr(case, name)
        for less in sorted({1, value // 2, value - 1}):
            if 1 <= less < value:
                yield dataclasses.replace(case, **{name: less})
    for name in ("c", "k"):
        value = getattr(case, name)
        for less in sorted({case.groups, value // 2, value - case.groups}):
            if case.groups <= less < value and less % case.groups == 0:
                yield dataclasses.replace(case, **{name: less})


def _is_possible(case: Case) -> bool:
    if min(case.output_size()) < 1 or (case.unbatched and case.n != 1):
        return False
    if case.op == "max_pool2d":
        fits = case.padding[0] <= case.r // 2 and case.padding[1] <= case.s // 2
        return fits and case.windows_hold_elements()
    if case.op == "conv_transpose2d":
        triples = zip(case.output_padding, case.stride, case.dilation, strict=True)
        return all(extra < max(stride, dilation) for extra, stride, dilation in triples)
    return case.has_what_it_pads_with() and (case.padding_value == 0 or case.padding_mode == "constant")
