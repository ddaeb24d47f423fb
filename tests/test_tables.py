"""Tests of tables: they agree with the records."""

import csv
import json
import pathlib

import pytest

import scoring
from pconv_jax.data import pipeline
from pconv_jax.evaluation import intervals, references, scores, tables

RECORDS = [
    scoring.record("network", 0, 0, 30.0, ssim=0.9, l1_percent=1.0),
    scoring.record("network", 1, 0, 33.0, touching=True, ssim=0.8, l1_percent=2.0),
    scoring.record("network", 2, 3, 21.0, touching=True, ssim=0.1, l1_percent=6.0),
    scoring.record("mean fill", 0, 0, 12.0),
    scoring.record("mean fill", 1, 0, 12.0, touching=True),
    scoring.record("mean fill", 2, 3, 9.0, touching=True),
]


def test_summary_by_hand():
    """Means and counts are right per bucket and border, and the mean over all is over images, not over buckets."""
    rows = tables.summarise(RECORDS)
    by_key = {(row["method"], row["bucket"], row["border"]): row for row in rows}
    cells = [("(1%, 10%]", "all"), ("(1%, 10%]", "off"), ("(1%, 10%]", "touching")]
    cells += [("(30%, 40%]", "all"), ("(30%, 40%]", "touching"), ("all", "all"), ("all", "off"), ("all", "touching")]
    assert list(by_key) == [(method, *cell) for method in ("network", "mean fill") for cell in cells]
    first = by_key["network", "(1%, 10%]", "all"]
    assert (first["count"], first["psnr"], first["l1_percent"], first["hole_psnr"]) == (2, 31.5, 1.5, 21.5)
    assert first["ssim"] == pytest.approx(0.85)
    assert (first["psnr_low"], first["psnr_high"]) == (30, 33)
    counts = {cell: by_key["network", *cell]["count"] for cell in cells}
    assert list(counts.values()) == [2, 1, 1, 1, 1, 3, 1, 2]
    assert by_key["network", "all", "all"]["psnr"] == 28 and by_key["mean fill", "all", "all"]["psnr"] == 11
    assert by_key["network", "all", "touching"]["psnr"] == 27
    lonely = by_key["network", "(30%, 40%]", "all"]
    assert lonely["psnr"] == 21 and lonely["psnr_low"] is None is lonely["psnr_high"]


def test_holes_of_an_area_outside_the_buckets_count_for_all():
    """A manifest may have holes of any area; they count for the mean over all."""
    rows = tables.summarise([scoring.record("a", 0, None, 10.0), scoring.record("a", 1, 5, 20.0)])
    assert [(row["bucket"], row["count"]) for row in rows if row["border"] == "all"] == [("(50%, 60%]", 1), ("all", 2)]


def test_differences_by_hand():
    """The first method is compared with each other one, example by example, over all and per bucket."""
    rows = [row for row in tables.compare(RECORDS) if row["metric"] == "psnr"]
    assert [(row["method"], row["other"], row["bucket"], row["count"], row["difference"]) for row in rows] == [
        ("network", "mean fill", "(1%, 10%]", 2, 19.5),
        ("network", "mean fill", "(30%, 40%]", 1, 12.0),
        ("network", "mean fill", "all", 3, 17.0),
    ]
    assert rows[2]["p"] == pytest.approx(0.25) and (rows[1]["low"], rows[0]["low"]) == (None, 18)
    assert tables.compare(RECORDS[:3]) == []


def test_only_the_same_examples_are_paired():
    """Methods that were scored on other examples, or in another order, are refused."""
    with pytest.raises(ValueError, match="network and mean fill were scored on different examples"):
        tables.compare(RECORDS[:5])
    with pytest.raises(ValueError, match="cannot be paired"):
        tables.compare([*RECORDS[:4], RECORDS[5], RECORDS[4]])


class Distances:
    """FID gets the members of each cell, and is None for fewer than two examples."""

    def distance(self, method, members):
        return None if members.sum() < 2 else len(method) + float(members.sum())


def test_lpips_and_fid_have_columns_where_there_are_weights():
    """LPIPS has intervals and differences, and FID has none; without weights no file mentions them."""
    records = [{**record, "lpips": 0.1 * (1 + i)} for i, record in enumerate(RECORDS)]
    rows, compared = tables.summarise(records, Distances()), tables.compare(records)
    by_key = {(row["method"], row["bucket"], row["border"]): row for row in rows}
    overall = by_key["network", "all", "all"]
    assert overall["lpips"] == pytest.approx(0.2) and overall["lpips_low"] == pytest.approx(0.1)
    assert (overall["fid"], by_key["network", "(30%, 40%]", "all"]["fid"]) == (10, None) and "fid_low" not in overall
    assert [row["difference"] for row in compared if row["metric"] == "lpips"] == pytest.approx([-0.3] * 3)
    text = tables.report("title", rows, compared, False, ("a note",)).splitlines()
    fid = text.index("| FID (lower) | (1%, 10%] n=2 | all n=3 |")
    assert text[fid : fid + 3] == [
        "| FID (lower) | (1%, 10%] n=2 | all n=3 |",
        "|---|---|---|",
        "| network | 9.00 | 10.00 |",
    ]
    assert "a note" in text and "| network | 0.1500 | 0.3000 | 0.2000 |" in text
    assert any(line.startswith("| LPIPS (lower): network minus |") for line in text)
    plain = tables.report("title", tables.summarise(RECORDS), tables.compare(RECORDS), False)
    assert "LPIPS" not in plain and "FID" not in plain and "fid" not in tables.summarise(RECORDS)[0]


def test_bucket_names():
    """Bucket names are the paper's ranges, open below and closed above."""
    names = [tables.bucket_name(bucket) for bucket in range(len(pipeline.BUCKETS))]
    assert names == ["(1%, 10%]", "(10%, 20%]", "(20%, 30%]", "(30%, 40%]", "(40%, 50%]", "(50%, 60%]"]
    assert tables.bucket_name(tables.ALL) == "all"


def test_markdown_by_hand():
    """Markdown has a table per metric, a line per method, and counts in the header."""
    rows = tables.summarise(RECORDS)
    lines = tables.markdown(rows).splitlines()
    assert lines[:5] == [
        "| PSNR, dB (higher is better) | (1%, 10%] n=2 | (30%, 40%] n=1 | all n=3 |",
        "|---|---|---|---|",
        "| network | 31.50 | 21.00 | 28.00 |",
        "| mean fill | 12.00 | 9.00 | 11.00 |",
        "",
    ]
    assert "| network | 0.8500 | 0.1000 | 0.6000 |" in lines and "| network | 1.50 | 6.00 | 3.00 |" in lines
    assert len(lines) == 14 and [i for i, line in enumerate(lines) if not line] == [4, 9]
    touching = tables.markdown(rows, ("psnr",), "touching", with_intervals=True).splitlines()
    assert touching[0].endswith("| (1%, 10%] n=1 | (30%, 40%] n=1 | all n=2 |")
    assert touching[2] == "| network | 33.00 | 21.00 | 27.00 [21.00, 33.00] |"


def test_markdown_of_differences_by_hand():
    lines = tables.markdown_compared(tables.compare(RECORDS), "psnr").splitlines()
    assert lines[0] == "| PSNR, dB (higher is better): network minus | (1%, 10%] n=2 | (30%, 40%] n=1 | all n=3 |"
    assert lines[2].startswith(
        "| mean fill | +19.50 [+18.00, +21.00] p=0.5 | +12.00 p=1 | +17.00 [+12.00, +21.00] p=0."
    )
    assert tables.markdown_compared([], "psnr") == ""


def test_references_stand_apart_with_their_data():
    """Published scores are shown for confirmed buckets only, in a table of their own."""
    text = tables.markdown_references("psnr")
    assert "| Places2, 512 px, holes off the border |  | 28.32 | 25.25 | 22.89 |  |  |" in text
    assert "| CelebA-HQ, 256 px, its 2824 test images | 39.26 | 33.00 | 29.53 | 26.99 | 25.04 | 21.50 |" in text
    assert "|  | 0.870 | 0.779 | 0.689 |  |  |" in tables.markdown_references("ssim")
    for result in references.PUBLISHED:
        assert result.metric in scores.METRICS and result.data and set(result.values) <= set(range(6))
    rows, compared = tables.summarise(RECORDS), tables.compare(RECORDS)
    with_them, without = (tables.report("title", rows, compared, shown) for shown in (True, False))
    assert "28.32" in with_them and "28.32" not in without and with_them.startswith(without)
    assert "not to be compared" in with_them


def test_tables_are_written(tmp_path):
    """JSON holds everything, CSV rows, records and differences, Markdown all tables; no other file is left."""
    rows, compared = tables.write(str(tmp_path / "eval"), "last", "title", RECORDS, {"step": 7})
    assert rows == tables.summarise(RECORDS) and compared == tables.compare(RECORDS)
    content = json.loads((tmp_path / "eval" / "last.json").read_text())
    assert content == {"step": 7, "rows": rows, "compared": compared, "records": RECORDS}
    for name, expected in (("last", rows), ("last_examples", RECORDS), ("last_compared", compared)):
        with open(tmp_path / "eval" / f"{name}.csv", newline="") as file:
            read = list(csv.DictReader(file))
        assert read == [{key: "" if x is None else str(x) for key, x in row.items()} for row in expected]
    text = (tmp_path / "eval" / "last.md").read_text()
    assert text.startswith(f"# title\n\n{tables.markdown(rows)}")
    for part in ("All holes", "Holes off the border", "Holes that touch the border", "Wilcoxon"):
        assert part in text
    written = sorted(path.name for path in (tmp_path / "eval").iterdir())
    assert written == ["last.csv", "last.json", "last.md", "last_compared.csv", "last_examples.csv"]


def test_tables_are_the_same_each_time(tmp_path):
    """Files that are written twice, over old ones or elsewhere, have the same bytes."""

    def content(directory):
        tables.write(str(tmp_path / directory), "last", "title", RECORDS, {"step": 7})
        return [path.read_bytes() for path in sorted(pathlib.Path(tmp_path / directory).iterdir())]

    assert content("a") == content("a") == content("b")


def test_intervals_are_those_of_the_bootstrap():
    """Intervals are the bootstrap's of each cell, with all metrics resampled together."""
    rows = [row for row in tables.summarise(RECORDS) if (row["method"], row["bucket"]) == ("network", "all")]
    low, high = intervals.bootstrap(tables._values(RECORDS[:3]))
    assert [rows[0][f"{name}_low"] for name in scores.METRICS] == low.tolist()
    assert [rows[0][f"{name}_high"] for name in scores.METRICS] == high.tolist()
