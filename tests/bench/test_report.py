"""Reports: everything written, losses listed, predictions marked in every output."""

import re

import pytest

from fastconv.bench import report
from fastconv.bench.report import tables
from fastconv.bench.results import load
from tests.bench.synthetic import CEILINGS, cases, measured, predicted, write


@pytest.fixture
def measurements(tmp_path):
    rows = []
    for number, one in enumerate(cases()):
        rows.append(measured(one, "pytorch", 3e-5))
        rows.append(measured(one, "fastconv-auto", 2e-5 if number else 6e-5))
    rows[-2].status, rows[-2].reason, rows[-2].cold = "failed", "RuntimeError: <b>boom</b> | pipe", None
    path = write(tmp_path / "results.jsonl", rows, device={"name": "made-up GPU"}, ceilings=CEILINGS.__dict__)
    return load(path)


@pytest.fixture
def predictions(tmp_path):
    rows = [predicted(one, "fastconv-cuda", 2e-5) for one in cases()]
    return load(write(tmp_path / "results.jsonl", rows, predicted_gpu="H200"))


def test_everything_is_written_and_figures_are_pictures(measurements, tmp_path):
    files = report.write_all(measurements, tmp_path / "out")
    pictures = [path for path in files if path.suffix == ".png"]
    assert {path.name for path in files} >= {"results.csv", "report.md", "report.html"}
    assert len(pictures) >= 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_the_page_needs_nothing_beside_it_and_escapes_what_it_shows(measurements, tmp_path):
    report.write_all(measurements, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!#)[^"]+"', re.sub(r'xlink:href="#', 'href="#', page))
    assert "<b>boom</b>" not in page
    assert "&lt;b&gt;boom" in page
    assert '<div class="scroll long"><table id="layer-rows">' in page, (
        "its headings and scroll bar would leave the window"
    )
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers)), (
        "two figures share an id, so one would be drawn with the other's parts"
    )


@pytest.mark.parametrize("missing", ["warm", "graph", "pytorch_error", "flops", "bytes"])
def test_a_row_that_lacks_a_figure_is_shown_with_the_others(tmp_path, missing):
    rows = [measured(one, name, 3e-5) for one in cases() for name in ("pytorch", "fastconv-auto")]
    for row in rows:
        setattr(row, missing, 0 if missing in ("flops", "bytes") else None)
    results = load(write(tmp_path / "results.jsonl", rows, device={"name": "made-up GPU"}, ceilings=CEILINGS.__dict__))
    report.write_all(results, tmp_path)
    assert "30.0" in tables.measured_rows(results).rows[0]


def test_a_roofline_of_ceilings_that_nobody_knows_is_not_drawn(tmp_path):
    rows = [measured(one, "fastconv-auto", 3e-5) for one in cases()]
    results = load(write(tmp_path / "results.jsonl", rows, device={"name": "made-up GPU"}))
    names = [path.name for path in report.write_all(results, tmp_path)]
    assert not [name for name in names if name.startswith("roofline")]


def test_every_loss_is_listed(measurements):
    lost = tables.losses(measurements)
    assert len(lost.rows) == 1
    assert lost.rows[0][0] == "0.50x"


def test_a_row_without_a_figure_is_listed_with_its_reason(measurements, tmp_path):
    report.write_all(measurements, tmp_path)
    assert "boom" in (tmp_path / "report.md").read_text()


def test_a_prediction_is_called_one_in_every_output(predictions, tmp_path):
    report.write_all(predictions, tmp_path)
    assert "Predicted, not measured" in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "Predicted, not measured" in page
    header = (tmp_path / "results.csv").read_text().splitlines()
    assert all(line.split(",")[0] == "predicted" for line in header[1:])
    for name in tables.predicted_rows(predictions).columns:
        if re.search(r"\bus\b|roofline|bound", name):
            assert "(predicted)" in name
    from fastconv.bench.report.figures import draw_all

    drawings = draw_all(predictions)
    assert drawings
    for drawing in drawings.values():
        words = [
            text.get_text() for axes in drawing.figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)
        ]
        words += [axes.get_title(loc="left") for axes in drawing.figure.axes]
        assert any("PREDICTED" in word for word in words)
        assert "redicted" in drawing.caption


def test_bars_stand_in_the_networks_order_whatever_ran_first(tmp_path):
    from fastconv.bench.report.figures import draw_all

    rows = [predicted(one, "fastconv-cuda", 2e-5) for one in reversed(cases(suites=["resnet50"]))]
    results = load(write(tmp_path / "results.jsonl", rows, predicted_gpu="H200"))
    (axes,) = draw_all(results)["predicted-resnet50-bfloat16-channels_last"].figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0].startswith("conv1 ")
    assert [label.split()[-1] for label in labels[:4]] == ["fwd", "dgrad", "wgrad", "fwd+bwd"]


def test_a_predicted_row_holds_no_measured_time(predictions):
    for row in predictions.rows:
        assert row.cold is None is row.warm
        assert row.graph is None is row.tflops
    assert tables.measured_rows(predictions).rows == []


def test_a_run_without_a_row_still_makes_a_report(tmp_path):
    results = load(write(tmp_path / "results.jsonl", [], predicted_gpu="H200"))
    assert report.write_all(results, tmp_path)


def test_a_run_without_a_gpu_that_had_no_time_for_a_row_is_not_taken_for_a_measured_one(tmp_path):
    results = load(write(tmp_path / "r.jsonl", [], predicted_gpu="H200"))
    assert tables.is_predicted(results)
    assert not tables.is_predicted(load(write(tmp_path / "m.jsonl", [], device={"name": "made-up GPU"})))
    report.write_all(results, tmp_path)
    assert "redicted" in (tmp_path / "report.html").read_text()
