"""Made-up results: for what reads them. No figure in here was measured."""

from fastconv.bench.cases import Case, Selection, select
from fastconv.bench.hardware import gpu_named
from fastconv.bench.results import Writer
from fastconv.bench.rows import make_row
from fastconv.bench.statistics import Sample

CEILINGS = gpu_named("H200").ceilings()


def sample(seconds):
    return Sample(seconds, 0.97 * seconds, 1.05 * seconds, 30)


def measured(case: Case, contestant: str, seconds: float):
    row = make_row(case, contestant, "ours" if contestant.startswith("fastconv") else "baseline")
    roof = case.roof(CEILINGS)
    row.cold = row.warm = row.graph = sample(seconds)
    row.tflops, row.gbytes_per_second = row.flops / seconds / 1e12, row.bytes / seconds / 1e9
    row.roofline_share, row.bound = roof.seconds / seconds, roof.bound
    row.error, row.pytorch_error = 1.7e-3, 1.6e-3
    return row


def predicted(case: Case, contestant: str, seconds: float):
    row = make_row(case, contestant, "ours", "predicted")
    roof = case.roof(CEILINGS)
    row.predicted_gpu, row.predicted_roof_seconds, row.bound = "H200", roof.seconds, roof.bound
    row.predicted_seconds, row.error, row.pytorch_error = seconds, 1.7e-3, 1.6e-3
    row.counted = {"distinct_ratio": 1.1, "sector_ratio": 1.6, "bank_conflicts": 0}
    return row


def cases(**options):
    return select(Selection(**{"suites": ["resnet50", "pools"], "quick": True, **options}))


def write(path, rows, **facts):
    environment = {"versions": {"torch": "0.0"}, "commit": "0123abc", **facts}
    writer = Writer(path, environment, resume=False)
    for row in rows:
        writer.write(row)
    writer.close()
    return path
