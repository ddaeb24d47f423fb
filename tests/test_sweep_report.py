"""Tests of the sweep's report: its numbers against ones worked by hand, and its files."""

import csv
import pathlib

import cv2
import numpy as np
import pytest

import scoring
import sweeps
from pconv_jax.evaluation import intervals
from pconv_jax.sweeping import comparison, pictures, plan, report

T1 = 12.7062  # Student's 0.975 quantile with one degree of freedom


@pytest.fixture
def sweep(tmp_path):
    """Returns a sweep with two seeds of the baseline and of "zero", and one of "no_hole", on two examples."""
    plan = sweeps.tiny(tmp_path)
    psnr = {
        ("baseline", 0): [20.0, 22.0],
        ("baseline", 1): [22.0, 24.0],
        ("zero", 0): [21.0, 23.0],
        ("zero", 1): [25.0, 28.0],
        ("no_hole", 1): [21.0, 24.0],
    }
    for run in plan.runs:
        if (run.variant, run.seed) in psnr:
            sweeps.finish(run, psnr[run.variant, run.seed], ssim=0.5 + 0.1 * run.seed)
    return plan


def rows_by(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_means_over_seeds(sweep):
    """The baseline has means 21 and 23, so 22 with s / sqrt(2) = 1; one seed has no interval; mean fill has no seed."""
    rows = comparison.means(comparison.read(sweep), sweep.variants)
    assert [(row["variant"], row["seeds"]) for row in rows] == [
        ("baseline", "0 1"),
        ("zero", "0 1"),
        ("no_hole", "1"),
        ("Telea", ""),
    ]
    np.testing.assert_allclose([rows[0][k] for k in ("psnr", "psnr_low", "psnr_high")], [22, 22 - T1, 22 + T1], 1e-5)
    np.testing.assert_allclose(
        [rows[0][k] for k in ("ssim", "ssim_low", "ssim_high")], [0.55, 0.55 - 0.05 * T1, 0.55 + 0.05 * T1], 1e-5
    )
    assert (rows[2]["psnr"], rows[2]["psnr_low"]) == (22.5, None) and (rows[3]["psnr"], rows[3]["psnr_low"]) == (
        10,
        None,
    )
    assert {row["examples"] for row in rows} == {2}


def test_differences_are_paired_by_seed_and_example(sweep):
    """Differences are paired by seed and by example.

    zero - baseline is 1, 1 with seed 0 and 3, 4 with seed 1: by example 2 and 2.5, by seed 1 and 3.5. no_hole has
    seed 1 alone: -1 and 0, against the baseline of seed 1 and not of seed 0.
    """
    scores_read = comparison.read(sweep)
    rows = comparison.differences(scores_read, sweep.variants)
    (zero,) = rows_by(rows, variant="zero", metric="psnr")
    pair = intervals.paired(np.array([2.0, 2.5]), np.zeros(2))
    assert (zero["difference"], zero["low"], zero["high"], zero["p"]) == (2.25, pair.low, pair.high, pair.p)
    assert zero["p"] == 0.5 and (zero["seeds"], zero["examples"]) == ("0 1", 2)
    np.testing.assert_allclose([zero["seeds_low"], zero["seeds_high"]], [2.25 - 1.25 * T1, 2.25 + 1.25 * T1], 1e-5)
    assert comparison.seed_differences(scores_read, "zero", "psnr") == [1.0, 3.5]
    assert comparison.seed_differences(scores_read, "zero", "ssim") == [0.0, 0.0]
    (single,) = rows_by(rows, variant="no_hole", metric="psnr")
    assert (single["difference"], single["seeds"], single["seeds_low"]) == (-0.5, "1", None)
    assert not rows_by(rows, variant="baseline") and len(rows) == 2 * len(comparison.METRICS)


def test_the_score_of_a_seed_is_the_mean_over_examples(tmp_path):
    """The score is the mean over seeds, not their median: 20, 21 and 25 have the mean 22."""
    plan = sweeps.tiny(tmp_path, seeds=(0,))
    sweeps.finish(plan.runs[0], [20.0, 21.0, 25.0])
    assert comparison.means(comparison.read(plan), plan.variants)[0]["psnr"] == 22


def test_student():
    """Student's interval of 1, 2, 3 is 2 -+ 4.3027 / sqrt(3), by the table for two degrees of freedom."""
    np.testing.assert_allclose(intervals.student(np.array([1.0, 2.0, 3.0])), [2 - 2.48414, 2 + 2.48414], 1e-5)
    assert intervals.student(np.array([1.0])) is None


def test_files(sweep):
    """Markdown states n, what is missing and why; CSV holds every number; pictures can be read."""
    scores_read = comparison.read(sweep)
    path = report.write(sweep, scores_read, [(sweep.runs[2], "exit code 1: error: it broke")])
    text = pathlib.Path(path).read_text()
    assert "| zero | model.kind=zero | n=2 | 24.25 [-4.34, 52.84] |" in text
    assert "| no_hole | loss.weights.hole=0.0 | n=1 | 22.50 |" in text and "| Telea |  |  | 10.00 |" in text
    assert "| zero | n=2 | +2.25 [+2.00, +2.50] p=0.5 | [-13.63, +18.13] |" in text
    assert "| no_hole | n=1 | -0.50 [-1.00, +0.00] p=1 | none (n = 1) |" in text
    assert (
        "| variant | seeds | PSNR, dB, over examples | PSNR, dB, over seeds | SSIM, over examples | SSIM, over seeds |"
        in text
    )
    ssim = {
        row["variant"]: row for row in comparison.differences(scores_read, sweep.variants) if row["metric"] == "ssim"
    }
    assert f"| [{ssim['zero']['seeds_low']:+.4f}, {ssim['zero']['seeds_high']:+.4f}] |" in text
    assert "were asked for" not in text
    assert f"- no_hole seed 0: failed, exit code 1: error: it broke (log: {sweep.runs[2].log})" in text
    assert "n = 2 examples" in text and "(n = number of seeds)" in text
    folder = pathlib.Path(sweep.directory)
    with open(folder / "report_differences.csv", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {key: "" if value is None else str(value) for key, value in row.items()}
            for row in comparison.differences(scores_read, sweep.variants)
        ]
    assert len((folder / "report.csv").read_text().splitlines()) == 5
    for name in ("report_differences.png", "report_curves.png"):
        assert cv2.imread(str(folder / name)).std() > 5
    before = {file.name: file.read_bytes() for file in folder.glob("report*")}
    report.write(sweep, scores_read, [(sweep.runs[2], "exit code 1: error: it broke")])
    assert before == {file.name: file.read_bytes() for file in folder.glob("report*")}


def test_the_variants_that_were_asked_for_are_named(tmp_path):
    """A report of chosen variants states that they were chosen."""
    some = plan.make(sweeps.file(), {}, variants=["zero"], directory=str(tmp_path))
    for run in some.runs:
        sweeps.finish(run, [20.0, 21.0])
    text = pathlib.Path(report.write(some, comparison.read(some), [])).read_text()
    assert "Of its variants these were asked for: zero.\n" in text and "no_hole" not in text


def test_one_seed_has_no_interval(tmp_path):
    """Unfinished runs are listed with their step and their log, or the task of a job array."""
    plan = sweeps.tiny(tmp_path, seeds=(0,))
    for run in plan.runs[:2]:
        sweeps.finish(run, [20.0, 21.0])
    sweeps.log(plan.runs[2], [{"step": 2}])
    scores_read = comparison.read(plan)
    text = pathlib.Path(report.write(plan, scores_read, [])).read_text()
    assert "- no_hole seed 0: at step 2 of 4, task 2 of the array, if there was one\n" in text
    pathlib.Path(plan.runs[2].log).write_text("step 2 of 4\nerror: it broke\nbye\n")
    text = pathlib.Path(report.write(plan, scores_read, [])).read_text()
    says = f"at step 2 of 4, its log {plan.runs[2].log} says: error: it broke"
    assert f"- no_hole seed 0: {says}\n" in text
    assert report.unfinished(plan, scores_read, []) == {"no_hole seed 0": f"no_hole seed 0: {says}"}
    assert "one seed has no interval over seeds (n = 1)" in text
    assert "| zero | n=1 | +0.00 [+0.00, +0.00] p=1 | none (n = 1)" in text


def test_without_a_baseline_there_are_no_differences(tmp_path):
    plan = sweeps.tiny(tmp_path, seeds=(0,))
    sweeps.finish(plan.runs[1], [20.0, 21.0])
    text = pathlib.Path(report.write(plan, comparison.read(plan), [])).read_text()
    assert "no differences" in text and not (tmp_path / "report_differences.csv").exists()


def test_other_examples_are_refused(sweep, tmp_path):
    """Runs with another number of examples, or other names, are refused."""
    sweeps.finish(sweep.runs[2], [20.0, 21.0, 22.0])
    with pytest.raises(
        ValueError, match=r"baseline/seed_0 and .*no_hole/seed_0 were scored on different .*\(2 and 3\)"
    ):
        comparison.read(sweep)
    path = pathlib.Path(sweep.runs[2].workdir) / "eval" / "last.json"
    path.write_text(pathlib.Path(sweep.runs[0].workdir, "eval", "last.json").read_text().replace('"00001"', '"00009"'))
    content = path.read_text().replace('"name": "baseline"', '"name": "no_hole"').replace('"hole": 6.0', '"hole": 0.0')
    path.write_text(content)
    with pytest.raises(ValueError, match=r"\(00001 and 00009 in place 1\) and cannot be paired"):
        comparison.read(sweep)


def test_nothing_is_finished(tmp_path):
    with pytest.raises(ValueError, match=r"no run of .* is finished: nothing to report"):
        comparison.read(sweeps.tiny(tmp_path))


def test_the_sheet_shows_composites():
    """The grid has a row per example and a column per variant, with the valid pixels of the image."""
    examples = [scoring.example(index) for index in range(2)]
    outputs = {name: np.full((2, 20, 24, 3), value, np.uint8) for name, value in (("a", 0), ("a" * 40, 200))}
    sheet = pictures.image_grid(examples, outputs)
    height, width, scale, bar, gap = 120, 144, 6, 22, 4  # of image_grids.grid: 20 x 24 enlarged to about 128
    assert sheet.shape == (bar + 2 * (height + gap) - gap, 4 * (width + gap) - gap, 3)
    for row, example in enumerate(examples):
        top = bar + row * (height + gap)
        for column, value in ((2, 0), (3, 200)):
            shown = sheet[top : top + height : scale, column * (width + gap) :][:, :width:scale]
            np.testing.assert_array_equal(shown, np.where(example.mask, example.image, value))
