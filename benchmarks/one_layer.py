"""Runs one case of a suite some times and nothing else: what a profiler or a sanitizer is pointed at.

python benchmarks/one_layer.py resnet50/layer1.0.conv2/fwd/bfloat16/channels_last/n32 --kernel mma_fprop
ncu --clock-control none --kernel-name regex:mma python benchmarks/one_layer.py ...
"""

from __future__ import annotations

import argparse

import torch

from fastconv.bench import contestants
from fastconv.bench.cases import case_of
from fastconv.bench.names import known
from fastconv.bench.precision import PRECISIONS, switches
from fastconv.bench.runner import make_inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", help="suite/layer/pass/dtype/layout/nBATCH, as rows of results name it")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--backend", default="cuda", help=f"{', '.join(contestants.OUR_BACKENDS)}; default cuda")
    who.add_argument("--kernel", help="one kernel family")
    who.add_argument("--pytorch", action="store_true", help="PyTorch's own kernels")
    parser.add_argument("--calls", type=int, default=3, help="how many; default 3")
    options = parser.parse_args()
    if options.calls < 1:
        parser.error(f"argument --calls: {options.calls}, but must be at least 1")
    try:
        case = case_of(options.case)
        known("backend", options.backend, contestants.OUR_BACKENDS)
        contestants.check_kernels([options.kernel] if options.kernel else [], [case])
    except ValueError as error:
        parser.error(str(error))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with switches(PRECISIONS[case.precision]):
        if options.pytorch:
            call = contestants.pytorch(case)
        elif options.kernel:
            call = contestants.one_kernel(case, options.kernel)
        else:
            call = contestants.ours(case, options.backend)
        if call is None:
            parser.error(f"{options.kernel} does not compute {options.case}")
        arguments = call.prepare(make_inputs(case, device, case.layout, seed=0))
        for _ in range(options.calls):
            call.run(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    main()
