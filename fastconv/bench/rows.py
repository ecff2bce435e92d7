"""A row of results for a case, with everything filled in that is known before anything runs."""

from __future__ import annotations

from fastconv.bench.cases import Case
from fastconv.bench.results import Row


def make_row(case: Case, contestant: str, role: str, kind: str = "measured") -> Row:
    layer = case.layer
    return Row(
        kind=kind,
        key=case.key,
        contestant=contestant,
        role=role,
        status="ok",
        suite=layer.suite,
        layer=layer.name,
        family=layer.family,
        op=layer.op,
        direction=case.direction,
        precision=case.precision,
        layout=case.layout,
        batch=case.batch,
        shape=layer.shape(),
        count=layer.count,
        description=layer.describe(),
        flops=case.flops(),
        bytes=case.bytes_moved(),
    )
