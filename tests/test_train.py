"""Tests of training runs from end to end: their files, and that stopping them does not change the result."""

import collections
import json
import pathlib
import shutil
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest

import runs
from pconv_jax import train
from pconv_jax.evaluation import evaluator, inputs, scores
from pconv_jax.models import vgg
from pconv_jax.ops import losses
from pconv_jax.training import build, checkpoints, parallel, reporting, train_state, transfer, validation

ROOT = pathlib.Path(__file__).resolve().parents[1]


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns an undisturbed run of four steps, and how often each function was compiled."""
    workdir, compiled, counting = tmp_path_factory.mktemp("finished"), collections.Counter(), [True]

    def count(event, _, fun_name="", **__):
        if counting and event == "/jax/core/compile/backend_compile_duration":  # found in JAX's cache or not
            compiled[fun_name] += 1

    jax.monitoring.register_event_duration_secs_listener(count)
    after = train.train(runs.tiny(), str(workdir / "run"))
    counting.clear()  # listeners cannot be taken back
    return workdir / "run", after, compiled


def test_what_a_run_leaves_behind(finished):
    """A run directory has config, checkpoints, metrics of every term, samples, and a complete evaluation."""
    workdir, after, _ = finished
    assert int(after.step) == 4
    assert json.loads((workdir / "config.json").read_text()) == json.loads(runs.tiny().to_json())
    assert [row["step"] for row in lines(workdir)] == [2, 2, 4, 4]
    assert {"loss", "valid", "hole", "tv", "weighted/hole", "grad_norm", "lr", "images_per_s", "data_wait"} <= set(
        lines(workdir)[0]
    )
    assert "eval_psnr" in lines(workdir)[1]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4"]
    assert list(workdir.glob("events.out.tfevents.*"))
    sheet = cv2.imread(str(workdir / "samples" / "step_0000004.png"))
    assert sheet.shape[1] > sheet.shape[0] > 100
    report = json.loads((workdir / "eval" / "last.json").read_text())
    assert report["step"] == 4 and report["parameters_sha256"] == checkpoints.digest(after.params)
    for method in ("network", "mean fill", "Telea", "Navier-Stokes"):
        assert len([r for r in report["records"] if r["method"] == method]) == 10, method
    assert "| network |" in (workdir / "eval" / "last.md").read_text()
    assert (workdir / "eval" / "last.csv").read_text().startswith("method,bucket,border,count,")


def test_every_program_is_compiled_once(finished):
    """The training step (`_fun` under pmap) and the prediction are compiled once.

    The run has more than two epochs (12 photographs, 4 batches of 8) and evaluations whose last batch is partial
    (10 of 8 each). The scores may have been compiled by another test before.
    """
    _, _, compiled = finished
    assert {"jit(_fun)", "jit(predict)"} <= compiled.keys()
    assert set(compiled.values()) == {1}, compiled


def test_metrics_are_read_while_the_next_step_runs(tmp_path, monkeypatch):
    """Metrics that are only logged are read one step later, and at once if a checkpoint follows."""
    dispatched, read = [], []
    map_step, interval = parallel.map_step, reporting.interval

    def counted(train_step):
        mapped = map_step(train_step)
        return lambda *arguments: (dispatched.append(None), mapped(*arguments))[1]

    def noted(pending):
        read.append((len(dispatched), [step for step, _ in pending]))
        return interval(pending)

    monkeypatch.setattr(parallel, "map_step", counted)
    monkeypatch.setattr(reporting, "interval", noted)
    config = runs.tiny(**{"train.steps": 7, "train.checkpoint_every": 7, "train.sample_every": 7})
    train.train(config, str(tmp_path / "run"))
    assert read == [(3, [1, 2]), (5, [3, 4]), (7, [5, 6]), (7, [7])]
    assert [row["step"] for row in lines(tmp_path / "run")] == [2, 4, 6, 7, 7]


def test_data_wait_is_time_without_a_step(tmp_path, monkeypatch):
    """If each batch comes long after the end of the step before, the log reports that all time is spent waiting."""
    config = runs.tiny(**{"train.steps": 4, "train.log_every": 4, "train.checkpoint_every": 4})
    batch = runs.batch(config)

    dispatched, all_progress = [], []

    def late(*_, **__):
        for _ in range(7):
            for progress in all_progress:
                progress._last.result()
            time.sleep(0.01)
            yield batch

    report = reporting.Progress.dispatched

    def dispatch(self, metrics):
        report(self, metrics)
        dispatched.append(metrics)
        all_progress[:] = [self]

    monkeypatch.setattr(reporting.Progress, "dispatched", dispatch)
    monkeypatch.setattr(build, "train_batches", late)
    train.train(config, str(tmp_path / "run"))
    assert len(dispatched) == 4 and all("loss" in metrics for metrics in dispatched)
    assert 0 < lines(tmp_path / "run")[0]["data_wait"] <= 1


def test_four_steps_are_two_and_two(finished, tmp_path, monkeypatch):
    """A run that is stopped and restored ends with the same bits, batches and metrics (the flax example does not)."""
    workdir, expected, _ = finished
    stop_after_save(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train.train(runs.tiny(), str(tmp_path / "run"))
    monkeypatch.undo()
    after = train.train(runs.tiny(), str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), jax.device_get(expected))
    ours, theirs = (
        [{k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")} for row in lines(w)]
        for w in (tmp_path / "run", workdir)
    )
    assert ours == theirs
    assert (tmp_path / "run" / "eval" / "last.csv").read_bytes() == (workdir / "eval" / "last.csv").read_bytes()


def stop_after_save(monkeypatch, step):
    """Interrupts a run right after the checkpoint of a step."""
    save = checkpoints.save

    def save_and_stop(manager, state, *psnr):
        save(manager, state, *psnr)
        if int(state.step) == step:
            manager.wait_until_finished()
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", save_and_stop)


TWO_PHASES = {"finetune.steps": 4, "finetune.lr": 1e-4}


@pytest.mark.parametrize("optimizer", validation.OPTIMIZERS)
def test_both_phases_resume_where_they_were_stopped(tmp_path, monkeypatch, optimizer):
    """A run that is stopped in the first phase, at its end and in the second ends with the undisturbed run's bits."""
    config = runs.tiny(**TWO_PHASES, **{"optim.name": optimizer})
    expected = train.train(config, str(tmp_path / "whole"))
    for step in (2, 4, 6):
        stop_after_save(monkeypatch, step)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, str(tmp_path / "run"))
        monkeypatch.undo()
    after = train.train(config, str(tmp_path / "run"))
    assert int(after.step) == 8
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), jax.device_get(expected))
    rates = {row["step"]: row["lr"] for row in lines(tmp_path / "run") if "lr" in row}
    assert rates == pytest.approx({2: 1e-3, 4: 1e-3, 6: 1e-4, 8: 1e-4})


def encoder_norm(state):
    return jax.device_get((state.params["enc2"]["norm"], state.batch_stats["enc2"]["norm"]))


def test_fine_tuning_from_another_run(finished, tmp_path):
    """With `init_from` and fine-tuning alone, the encoder's normalisation stays that of the other run."""
    workdir, before, _ = finished
    changes = {"train.steps": 0, **TWO_PHASES, "train.checkpoint_every": 4}
    after = train.train(runs.tiny(**changes, init_from=str(workdir)), str(tmp_path / "a"))
    same = train.train(runs.tiny(**changes, init_from=str(workdir / "checkpoints" / "4")), str(tmp_path / "b"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), jax.device_get(same))
    jax.tree.map(np.testing.assert_array_equal, encoder_norm(after), encoder_norm(before))
    assert int(after.step) == 4 and not np.array_equal(*(x.params["dec1"]["conv"]["kernel"] for x in (after, before)))
    psnr = {row["step"]: row["eval_psnr"] for row in lines(workdir) if "eval_psnr" in row}
    assert lines(tmp_path / "a")[0] == {"step": 0, "eval_psnr": psnr[4]}


def test_a_transfer_does_not_need_the_other_run_once_it_began(finished, tmp_path, monkeypatch):
    """A run that stopped before its first step continues from the transferred parameters, without the other run."""
    shutil.copytree(finished[0], tmp_path / "source")
    config = runs.tiny(init_from=str(tmp_path / "source"))
    expected = train.train(config, str(tmp_path / "whole"))
    stop_after_save(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, str(tmp_path / "run"))
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "source")
    after = train.train(config, str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), jax.device_get(expected))


def test_a_transfer_takes_the_average(tmp_path):
    """The averaged parameters of the other run are taken, and the average of the new run starts from them."""
    source = train.train(runs.tiny(**{"optim.ema": 0.5, "train.steps": 2}), str(tmp_path / "source"))
    shapes = build.state_shapes(runs.tiny(**{"optim.ema": 0.9}))
    params, stats = transfer.parameters(str(tmp_path / "source"), shapes)
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(source.ema))
    jax.tree.map(np.testing.assert_array_equal, stats, jax.device_get(source.batch_stats))
    state = train_state.with_parameters(build.initial_state(runs.tiny(**{"optim.ema": 0.9})), params, stats)
    assert state.ema is params and state.params is params and int(state.step) == 0


def test_transfers_that_do_not_fit_are_refused(finished, tmp_path):
    """Missing, surplus and differing parameters are listed by name before anything is written."""
    workdir, *_ = finished
    for changes, message in (
        (
            {"model.norm": "none"},
            r"checkpoint 4 does not fit.* missing params/dec2/conv/bias.*surplus params/dec2/norm",
        ),
        ({"model.width": 12}, r"params/enc1/conv/kernel is \(3, 3, 3, 8\), needs \(3, 3, 3, 12\)"),
        ({"init_from": str(workdir / "checkpoints" / "3")}, "3 is no complete checkpoint: those of .* are 2, 4"),
        ({"init_from": str(tmp_path)}, "holds no checkpoint: give a run directory, or one of its checkpoints/<step>"),
    ):
        with pytest.raises(ValueError, match=message):
            train.train(runs.tiny(**{"init_from": str(workdir), **changes}), str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_running_a_finished_run_again_changes_nothing(finished):
    """A finished run that is started again evaluates once more, with the same result."""
    workdir, expected, _ = finished
    table, metrics = (workdir / "eval" / "last.json").read_bytes(), (workdir / "metrics.jsonl").read_bytes()
    after = train.train(runs.tiny(), str(workdir))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), jax.device_get(expected))
    assert (workdir / "eval" / "last.json").read_bytes() == table
    assert (workdir / "metrics.jsonl").read_bytes() == metrics


def test_another_config_is_refused(finished):
    workdir, *_ = finished
    with pytest.raises(ValueError, match=r"another config \(optim.lr: 0.001 there, 0.5 now\)"):
        train.train(runs.tiny(**{"optim.lr": 0.5}), str(workdir))


def test_a_checkpoint_of_another_model_is_refused(finished):
    """A checkpoint of another model is refused with the differing paths."""
    workdir, *_ = finished
    other = build.state_shapes(runs.tiny(**{"model.width": 12}))
    with (
        checkpoints.open_manager(str(workdir)) as manager,
        pytest.raises(
            ValueError,
            match=r"checkpoint 4 does not fit .*params/enc1/conv/kernel is \(3, 3, 3, 8\), needs \(3, 3, 3, 12\)",
        ),
    ):
        checkpoints.restore(manager, other)


def test_evaluate_reads_only_the_run_directory(finished, tmp_path):
    """`python -m pconv_jax.evaluate --run=DIR` gives training's scores, and names a directory that holds no run."""
    workdir, *_ = finished
    command = [sys.executable, "-m", "pconv_jax.evaluate", "--checkpoint=best", "--run"]
    done = subprocess.run([*command, str(workdir)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "| Navier-Stokes |" in done.stdout
    best = json.loads((workdir / "eval" / "best.json").read_text())
    psnr = {row["step"]: row["eval_psnr"] for row in lines(workdir) if "eval_psnr" in row}
    assert best["step"] == max(psnr, key=psnr.get)
    mean = [r["psnr"] for r in best["rows"] if r["method"] == "network" and r["bucket"] == "all"]
    assert mean[0] == pytest.approx(max(psnr.values()), abs=1e-3)
    failed = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert failed.returncode != 0 and "holds no run" in failed.stderr and "Traceback" not in failed.stderr


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    """The error has the step and its terms, and no checkpoint has the spoiled parameters."""
    batches = build.train_batches

    def spoiled(config, source, start):
        for k, batch in enumerate(batches(config, source, start)):
            yield {**batch, "image": batch["image"] + np.float32(np.inf if k == 2 else 0)}

    monkeypatch.setattr(build, "train_batches", spoiled)
    with pytest.raises(reporting.NonFinite, match=r"step 3 is not finite \(.*hole (nan|inf).*\): look at the data"):
        train.train(runs.tiny(), str(tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]


def test_no_checkpoint_holds_parameters_that_are_not_finite(tmp_path):
    """An update that overflows although loss and gradient are finite stops the run before it saves."""
    config = runs.tiny(**{"optim.lr": 1e38, "model.norm": "none", "train.log_every": 1, "train.checkpoint_every": 1})
    with pytest.raises(reporting.NonFinite, match=r"step 1 is not finite .*param_norm inf"):
        train.train(config, str(tmp_path / "run"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_the_last_and_the_best_checkpoints_are_kept(tmp_path):
    """The two newest and the one of the best PSNR are kept; a PSNR of NaN ranks last."""
    fresh = parallel.replicate(build.initial_state(runs.tiny()))
    with checkpoints.open_manager(str(tmp_path), max_to_keep=2) as manager:
        for step, psnr in enumerate([5.0, 9.0, float("nan"), 1.0, 6.0], start=1):
            checkpoints.save(manager, fresh.replace(step=np.int32(step)), psnr)
        manager.wait_until_finished()
        assert manager.best_step() == 2
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]


def test_other_images_are_refused(finished, tmp_path):
    """A run is not continued on a folder with added photographs, which would change the order and the split."""
    workdir, *_ = finished
    data = json.loads((workdir / "data.json").read_text())
    assert data["train"].startswith("12 files, sha256") and data["evaluation"].startswith("4 files, sha256")
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    (copy / "data.json").write_text(json.dumps({**data, "train": "13 files"}))
    with pytest.raises(ValueError, match=r"run on other images \(train: 13 files there, 12 files, sha256 \w+ now\)"):
        train.train(runs.tiny(), str(copy))


def test_nothing_is_written_when_data_or_devices_do_not_fit(tmp_path):
    workdir, broken, empty = tmp_path / "run", tmp_path / "broken", tmp_path / "empty"
    broken.mkdir()
    empty.mkdir()
    for k in range(3):
        (broken / f"{k}.jpg").write_bytes(b"no image")
    for changes, message in (
        ({"train.batch_size": 6}, "train.batch_size is 6 on 4 devices"),
        ({"train.accumulate": 3}, "train.batch_size is 8 on 4 devices in 3 parts each; needs a multiple of 12"),
        ({"data.source": "folder", "data.path": str(tmp_path / "none")}, "is not a directory: set data.path"),
        ({"data.source": "folder", "data.path": str(broken)}, "2 images in a row cannot be decoded"),
        ({"masks.kind": "folder", "masks.path": str(empty)}, "no mask images"),
        ({"masks.area": (0.5, 0.501)}, r"no mask of 16x16 has a hole area in \(0.5, 0.501\)"),
        ({"eval.masks.kind": "folder", "eval.masks.path": str(workdir)}, "run is not a directory"),
        ({"loss.vgg16_weights": str(tmp_path / "none.npz")}, "no VGG16 weights at"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            train.train(runs.tiny(**changes), str(workdir))
        assert not workdir.exists()


SAVING = {"model.dtype": "bfloat16", "model.remat": True, "train.accumulate": 2}


@pytest.mark.parametrize("saving", [{}, pytest.param(SAVING, marks=pytest.mark.slow)])
def test_a_folder_with_all_terms(tmp_path, saving):
    """A run works with a folder with a corrupt file, VGG16's weights, averages and all options that save memory."""
    rng = np.random.default_rng(0)
    for k in range(5):
        name = tmp_path / "photos" / ("sub dir" if k % 2 else "") / f"{k}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(name), rng.integers(0, 256, (40, 50, 3), np.uint8))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    arrays, inputs = {"order": "RGB", "scale": 1.0, "mean": np.zeros(3), "std": np.ones(3)}, 3
    for name, outputs in (layer for layer in vgg.LAYERS if layer is not None):
        arrays[f"{name}/kernel"] = rng.normal(0, 0.05, (3, 3, inputs, outputs)).astype(np.float32)
        arrays[f"{name}/bias"], inputs = np.zeros(outputs, np.float32), outputs
    np.savez(tmp_path / "vgg.npz", **arrays)
    config = runs.tiny(
        **{
            "data.source": "folder",
            "data.path": str(tmp_path / "photos"),
            "loss.vgg16_weights": str(tmp_path / "vgg.npz"),
            "optim.ema": 0.5,
            "train.steps": 2,
            **saving,
        }
    )
    train.train(config, str(tmp_path / "run"))
    row = lines(tmp_path / "run")[0]
    names = [name for name in config.loss.weights if name not in losses.OPTIONAL_TERMS]
    assert {f"{kind}{name}" for kind in ("", "weighted/") for name in names} <= set(row)
    assert row["skipped"] > 0 and not losses.OPTIONAL_TERMS.keys() & row.keys()
    total = sum(config.loss.weights[name] * row[name] for name in names)
    assert row["loss"] == pytest.approx(total, rel=1e-4)


def test_two_evaluations_agree(finished):
    """Masks and crops are the same each time (naoto0804 draws them afresh), and all 10 examples count."""
    config = runs.tiny()
    _, source = build.image_sources(config)
    evaluation_set = build.evaluation_set(config, source)
    evaluations = [evaluator.Evaluator(build.unet_model(config), evaluation_set, 8) for _ in range(2)]
    records = [
        scores.score({"network": e.network(finished[1])}, inputs.batches(e.inputs, config.eval.batch_size))
        for e in evaluations
    ]
    assert records[0] == records[1] and len(records[0]) == 10
    psnr = [e.psnr(finished[1]) for e in evaluations]
    assert psnr[0] == psnr[1] == pytest.approx(np.mean([r["psnr"] for r in records[0]]), abs=1e-5)
