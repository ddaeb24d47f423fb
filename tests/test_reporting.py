"""Tests of a run's metrics, progress and image grids, also after a kill and with a NaN."""

import json
import struct
import threading

import cv2
import numpy as np
import PIL.Image
import pytest
from tensorboardX.proto import event_pb2

import pictures
from pconv_jax.evaluation import image_grids
from pconv_jax.training import reporting


class Clock:
    """A stand-in for `time.perf_counter` that advances only when it is set."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(reporting.time, "perf_counter", lambda: self.now)

    def passes(self, seconds):
        self.now += seconds


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def records(workdir):
    """Yields the events of all event files in order; a record is length, checksum, event and checksum."""
    for path in sorted(workdir.glob("events.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def events(workdir):
    """Returns the scalars of all event files, `{(step, name): value}`."""
    return {(event.step, value.tag): value.simple_value for event in records(workdir) for value in event.summary.value}


def test_interval_averages_and_sums_the_skipped():
    """Metrics are means over the steps of the interval, for any number type; skipped images add up."""
    pending = [
        (1, {"loss": np.float32(1.0), "hole": 0.5, "skipped": 2.0}),
        (2, {"loss": np.float32(2.0), "hole": 0.0, "skipped": 0.0}),
        (3, {"loss": np.float32(6.0), "hole": 0.25, "skipped": 3.0}),
    ]
    assert reporting.interval(pending) == {"loss": 3.0, "hole": 0.25, "skipped": 5.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_interval_names_the_first_step_that_is_not_finite(bad, name):
    """The error has the first step that is not finite, all its terms, and what to do."""
    pending = [(step, {"loss": 1.0, "grad_norm": 2.5, "skipped": 0.0}) for step in (11, 12, 13, 14)]
    pending[1][1][name] = bad
    pending[2][1].update(loss=np.nan, grad_norm=np.nan)
    terms = {"loss": "1", "grad_norm": "2.5", name: str(bad)}
    message = (
        rf"step 12 is not finite \(loss {terms['loss']}, grad_norm {terms['grad_norm']}, skipped 0\): look at the data"
    )
    with pytest.raises(reporting.NonFinite, match=message):
        reporting.interval(pending)


@pytest.mark.parametrize("step", [0, 10])
def test_a_resumed_run_purges_the_events_after_its_checkpoint(tmp_path, step):
    """TensorBoard drops events from the purge step on, which is the step after the checkpoint's."""
    with reporting.MetricsLog(str(tmp_path), step):
        pass
    starts = [event.step for event in records(tmp_path) if event.session_log.status == event_pb2.SessionLog.START]
    assert starts == [step + 1]


def test_metrics_are_lines_and_events(tmp_path):
    """Each logged step is a JSON line, readable before the run ends, and has the same numbers in TensorBoard."""
    with reporting.MetricsLog(str(tmp_path), 0) as log:
        log.write(10, {"loss": 0.5, "lr": 0.25})
        assert lines(tmp_path) == [{"step": 10, "loss": 0.5, "lr": 0.25}]
        log.write(20, {"loss": 0.125})
        log.image(20, "samples", pictures.noise(0, 8, 8))
    assert lines(tmp_path)[1] == {"step": 20, "loss": 0.125}
    scalars = events(tmp_path)
    assert (scalars[10, "loss"], scalars[10, "lr"], scalars[20, "loss"]) == (0.5, 0.25, 0.125)
    assert (20, "samples") in scalars


def test_resumed_metrics_go_on_where_the_checkpoint_is(tmp_path):
    """Lines that a killed run wrote after its last checkpoint are dropped; earlier lines stay unchanged."""
    with reporting.MetricsLog(str(tmp_path), 0) as log:
        for step in (10, 20, 30, 40):
            log.write(step, {"loss": step / 10})
        log.write(20, {"eval_psnr": 25.0})
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    with reporting.MetricsLog(str(tmp_path), 20) as log:
        log.write(30, {"loss": 33.0})
    after = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert after == [before[0], before[1], before[4], json.dumps({"step": 30, "loss": 33.0})]


def test_a_run_without_checkpoint_starts_its_metrics_anew(tmp_path):
    """A run that was killed before its first checkpoint starts at step 0, and so does the file."""
    with reporting.MetricsLog(str(tmp_path), 0) as log:
        log.write(10, {"loss": 1.0})
    with reporting.MetricsLog(str(tmp_path), 0) as log:
        log.write(10, {"loss": 2.0})
    assert lines(tmp_path) == [{"step": 10, "loss": 2.0}]


@pytest.mark.parametrize("torn", ['{"step": 20, "lo', '{"step": 2', "{", '{"step": 20, "loss": 2.0'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    """Half a line, as a killed run leaves it, is dropped before the next one is appended."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 1.0}\n' + torn)
    with reporting.MetricsLog(str(tmp_path), 1000) as log:
        log.write(1010, {"loss": 3.0})
    assert lines(tmp_path) == [{"step": 10, "loss": 1.0}, {"step": 1010, "loss": 3.0}]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0m 00s"),
        (5.4, "0m 05s"),
        (59.6, "1m 00s"),
        (754, "12m 34s"),
        (3600, "1h 0m"),
        (86399, "23h 59m"),
        (90061, "1d 1h 1m"),
    ],
)
def test_duration(seconds, text):
    """A duration is shown in its two or three largest units."""
    assert reporting.duration(seconds) == text


def test_progress_measures_training_alone(monkeypatch):
    """Time for evaluation and checkpoints counts neither for the rate nor for the time left."""
    clock = Clock(monkeypatch)
    progress = reporting.Progress(step=0, steps=100, batch_size=8)
    clock.passes(50)  # compilation
    progress.restart(1)
    clock.passes(3)
    started = clock.now
    clock.passes(1)
    progress.waited(started)
    rate = progress.measure(11)
    assert rate == {"images_per_s": 20.0, "data_wait": 0.25, "seconds_left": pytest.approx(89 * 0.4)}
    clock.passes(1000)  # evaluation
    progress.restart(11)
    clock.passes(1)
    rate = progress.measure(21)  # 20 steps took 5 s so far
    assert rate == {"images_per_s": 80.0, "data_wait": 0.0, "seconds_left": pytest.approx(79 * 0.25)}
    clock.passes(2)
    assert progress.measure(31)["images_per_s"] == 40.0  # since the last measurement, without a restart


class Step:
    """A stand-in for a step's metrics that is ready when `done` is set."""

    def __init__(self):
        self.done = threading.Event()

    def block_until_ready(self):
        assert self.done.wait(10)
        return self


def test_only_waiting_without_a_step_under_way_counts(monkeypatch):
    """Waiting counts before the first step, after the end of the last one, and from the moment at which a step ends."""
    clock = Clock(monkeypatch)
    progress, step = reporting.Progress(0, 100, 1), Step()

    def fetch(seconds, then=lambda: None, more=0):
        started = clock.now
        clock.passes(seconds)
        then()
        clock.passes(more)
        progress.waited(started)
        return round(progress.measure(1)["data_wait"] * (clock.now - started), 6)

    def end():
        step.done.set()
        progress._last.result(10)

    assert fetch(2) == 2  # nothing runs yet
    progress.dispatched(step)
    assert fetch(5) == 0  # the step runs
    assert fetch(3, end, 4) == 4
    assert fetch(6) == 6
    step = Step()
    progress.dispatched(step)
    assert fetch(7) == 0
    end()


def test_progress_of_a_resumed_run(monkeypatch):
    """Steps of earlier runs count as done, but not for this run's time."""
    clock = Clock(monkeypatch)
    progress = reporting.Progress(step=90, steps=100, batch_size=2)
    clock.passes(3)
    assert progress.measure(93) == {"images_per_s": 2.0, "data_wait": 0.0, "seconds_left": 7.0}


def test_progress_before_anything_was_timed(monkeypatch):
    """The step that compiles is not timed, so a log line after it has no rate, and is no error."""
    clock = Clock(monkeypatch)
    progress = reporting.Progress(step=0, steps=1, batch_size=8)
    progress.restart(1)
    clock.passes(0.5)
    assert progress.measure(1) == {"images_per_s": 0.0, "data_wait": 0.0, "seconds_left": 0.0}


def test_progress_line(monkeypatch):
    """The line has step, fraction, terms, rate and time left, and corrupt images if there were any."""
    Clock(monkeypatch)
    progress = reporting.Progress(0, 400, 8)
    rate = {"images_per_s": 12.34, "data_wait": 0.5, "seconds_left": 65}
    line = progress.line(100, {"loss": 0.123456, "lr": 2e-4, "skipped": 0.0}, rate)
    assert line == "step 100/400 (25%)  loss 0.1235  lr 0.0002  12.3 images/s  1m 05s left"
    assert "  3 corrupt images skipped  " in progress.line(100, {"loss": 1.0, "skipped": 3.0}, rate)


def colour(red, green, blue, height=64, width=64):
    return np.full((height, width, 3), (red, green, blue), np.uint8)


def test_grid_places_images():
    """Rows and columns have gaps of 4 pixels below a bar of titles; small images are enlarged by whole factors."""
    rows = [[colour(255, 0, 0), colour(0, 255, 0), colour(0, 0, 255)], [colour(i, i, i) for i in (10, 20, 30)]]
    sheet = image_grids.grid(rows)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 128 + 4, 3 * 128 + 8, 3)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            tile = sheet[132 * r : 132 * r + 128, 132 * c : 132 * c + 128]
            assert (tile == image[0, 0]).all()
    assert (sheet[128:132] == 255).all() and (sheet[:, 128:132] == 255).all()
    titled = image_grids.grid(rows, columns=("a", "b", "c"))
    assert titled.shape == (22 + 2 * 128 + 4, 3 * 128 + 8, 3)
    np.testing.assert_array_equal(titled[22:], sheet)
    assert (titled[:22] < 128).any(axis=(0, 2)).any() and (titled[:22] == 255).any()


@pytest.mark.parametrize(("side", "shown"), [(16, 128), (64, 128), (100, 100), (300, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples(side, shown, channels):
    """A row shows masked (white holes), prediction, composite (valid pixels unchanged) and original."""
    image = np.stack([pictures.noise(i, side, side, channels) for i in range(2)])
    mask = np.ones((2, side, side, 1), np.uint8)
    mask[:, side // 2 :] = 0
    output = np.full(image.shape, 0.5, np.float32)
    output[:, :, side // 2 :] = 1.7  # beyond white
    sheet = image_grids.samples(image, mask, output)
    assert sheet.shape == (22 + 2 * shown + 4, 4 * shown + 12, 3)
    factor, lower = shown // side, slice(shown // 2, None)
    for r in range(2):
        tiles = [sheet[22 + r * (shown + 4) :][:shown, c * (shown + 4) :][:, :shown] for c in range(4)]
        whole = image[r].repeat(factor, 0).repeat(factor, 1)
        whole = np.broadcast_to(whole, (shown, shown, 3))
        masked, prediction, composite, original = tiles
        np.testing.assert_array_equal(original, whole)
        assert (masked[lower] == 255).all()
        assert (prediction[lower, : shown // 2 - factor] == 128).all() and (prediction[lower, -4:] == 255).all()
        np.testing.assert_array_equal(composite[lower], prediction[lower])
        np.testing.assert_array_equal(composite[: shown // 2], whole[: shown // 2])
        np.testing.assert_array_equal(masked[18 : shown // 2], whole[18 : shown // 2])  # below the label


def test_labels_say_the_share_of_holes():
    """A label depends on the hole, and changes only the upper left corner of the first image."""
    image, output = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64, 3))
    mask = np.ones((1, 64, 64, 1), np.uint8)
    mask[:, :16] = 0
    quarter, most = (image_grids.grid([[image[0]]], labels=[label]) for label in ("25%", "75%"))
    assert (quarter != most).any() and not quarter[18:].any() and not quarter[:, 36:].any()
    np.testing.assert_array_equal(image_grids.samples(image, mask, output)[22:40, :36], quarter[:18, :36])


def test_sheet_is_a_png_with_true_colours(tmp_path):
    """The file is an exact RGB PNG in a directory that is created, without other files."""
    sheet = np.concatenate([colour(250, 10, 20), colour(0, 200, 100), pictures.noise(0, 64, 64)])
    path = tmp_path / "samples" / "step_1.png"
    image_grids.save(str(path), sheet)
    with PIL.Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), sheet)
    assert [p.name for p in path.parent.iterdir()] == ["step_1.png"]
    image_grids.save(str(path), sheet[:64])  # over the old one
    assert cv2.imread(str(path)).shape == (64, 64, 3)


def test_sheet_that_cannot_be_written(tmp_path):
    """A file in the place of the directory causes an OSError."""
    (tmp_path / "samples").write_text("")
    with pytest.raises(OSError):
        image_grids.save(str(tmp_path / "samples" / "step_1.png"), colour(1, 2, 3))
