"""Tests of the run directory: it belongs to one config, and a file in it is complete or absent."""

import json
import os
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from experiments import default
from pconv_jax.training import rundir, validation, versions

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = {"train": "3 files", "evaluation": "1 file"}


@pytest.fixture
def config():
    return default.get_config()


def test_claim_creates_the_directory(tmp_path, config):
    """The directory and its parents are created, with config.json, data.json and versions.json alone."""
    workdir = tmp_path / "runs" / "new"
    rundir.claim(str(workdir), config, DATA)
    assert sorted(os.listdir(workdir)) == ["config.json", "data.json", "versions.json"]
    assert json.loads((workdir / "config.json").read_text()) == json.loads(json.dumps(config.to_dict()))


def test_claim_takes_an_empty_directory(tmp_path, config):
    """An empty directory, such as a container's mounted volume, is used."""
    rundir.claim(str(tmp_path), config, DATA)
    assert (tmp_path / "config.json").is_file()


def test_the_same_config_goes_on(tmp_path, config):
    """The same config continues a run, although JSON turns tuples into lists; no file is changed."""
    workdir = tmp_path / "run"
    rundir.claim(str(workdir), config, DATA)
    (workdir / "metrics.jsonl").write_text("{}\n")
    before = (workdir / "config.json").stat().st_mtime_ns
    rundir.claim(str(workdir), default.get_config(), DATA)
    rundir.claim(str(workdir), rundir.read_config(str(workdir)), DATA)
    assert (workdir / "config.json").stat().st_mtime_ns == before
    assert sorted(os.listdir(workdir)) == ["config.json", "data.json", "metrics.jsonl", "versions.json"]


def test_another_config_is_refused(tmp_path, config):
    """The refusal lists each differing key with both values, and the run stays unchanged."""
    workdir = tmp_path / "run"
    rundir.claim(str(workdir), config, DATA)
    before = (workdir / "config.json").read_bytes()
    config.train.steps = 7
    config.data.crop_scale = (0.25, 1.0)
    message = (
        r"run belongs to a run with another config \(data.crop_scale: \[0.5, 1.0\] there, \[0.25, 1.0\] now; "
        r"train.steps: 500000 there, 7 now\): choose another --workdir, or go on with the same config"
    )
    with pytest.raises(ValueError, match=message):
        rundir.claim(str(workdir), config, DATA)
    assert (workdir / "config.json").read_bytes() == before


def test_a_key_that_is_new_or_gone_is_a_difference(tmp_path, config):
    """A key that only one of two versions of the project has is listed as absent."""
    rundir.claim(str(tmp_path), config, DATA)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["optim"]["ema"]
    values["old_key"] = 3
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"\(old_key: 3 there, absent now; optim.ema: absent there, 0.0 now\)"):
        rundir.claim(str(tmp_path), config, DATA)


def test_a_file_in_its_place_is_refused(tmp_path, config):
    """A file in the place of the run directory is refused and left unchanged."""
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match=r"run is a file; needs a directory: choose another --workdir"):
        rundir.claim(str(tmp_path / "run"), config, DATA)
    assert (tmp_path / "run").read_text() == "mine"


def test_a_foreign_directory_is_refused(tmp_path, config):
    """A directory with files and no config.json is not written into."""
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty and has no config.json: choose another --workdir"):
        rundir.claim(str(tmp_path), config, DATA)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_config_is_read_back(tmp_path, config):
    """Every key is read back in a form that passes the rules."""
    rundir.claim(str(tmp_path), config, DATA)
    read = rundir.read_config(str(tmp_path))
    assert isinstance(read, ml_collections.ConfigDict)
    validation.validate(read)
    assert json.dumps(read.to_dict(), sort_keys=True) == json.dumps(config.to_dict(), sort_keys=True)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("")])
def test_no_run_is_an_error(tmp_path, make):
    """A missing directory, an empty one and a file are errors that ask for the directory that training wrote."""
    make(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run holds no run \(config.json is missing\): give the directory that"):
        rundir.read_config(str(tmp_path / "run"))


def test_a_broken_config_is_an_error(tmp_path, config):
    """The error names the file, and starting the run again does not overwrite it."""
    (tmp_path / "config.json").write_text('{"name": "qui')
    for call in (lambda: rundir.read_config(str(tmp_path)), lambda: rundir.claim(str(tmp_path), config, DATA)):
        with pytest.raises(
            ValueError, match=r"config.json is not JSON \(.*\): restore it, or choose another --workdir"
        ):
            call()
    assert (tmp_path / "config.json").read_text() == '{"name": "qui'


def test_write_atomically(tmp_path):
    """The file has the new text, also over an older one, and no temporary file remains."""
    path = tmp_path / "table.md"
    for text in ("first, longer\n", "zweite ä\n"):
        rundir.write_atomically(str(path), text)
        assert path.read_text(encoding="utf-8") == text
        assert os.listdir(tmp_path) == ["table.md"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A crash just before the end leaves the old file complete."""
    path = tmp_path / "table.md"
    rundir.write_atomically(str(path), "old")

    def crash(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(rundir.os, "replace", crash)
    with pytest.raises(OSError, match="no space left"):
        rundir.write_atomically(str(path), "new and longer")
    assert path.read_text() == "old"


def test_versions_of_what_decides_results():
    """Every evaluation records the versions of the libraries that decide its results."""
    installed = versions.libraries()
    assert {"jax", "jaxlib", "flax", "optax", "grain", "numpy", "opencv"} == installed.keys()
    assert all(version[0].isdigit() for version in installed.values())


def test_other_images_are_refused(tmp_path, config):
    """Other images are refused by their use, with both fingerprints; the same images continue the run."""
    rundir.claim(str(tmp_path / "run"), config, DATA)
    rundir.claim(str(tmp_path / "run"), config, dict(DATA))
    with pytest.raises(ValueError, match=r"other images \(train: 3 files there, 4 files now\): choose"):
        rundir.claim(str(tmp_path / "run"), config, {**DATA, "train": "4 files"})


def test_a_claim_that_was_killed_can_be_made_again(tmp_path, config):
    """Files of a claim that was killed, data.json or an unfinished one, do not make the directory foreign."""
    (tmp_path / "config.json.123.tmp").write_text("{")
    (tmp_path / "data.json").write_text(json.dumps(DATA))
    rundir.claim(str(tmp_path), config, DATA)
    assert rundir.read_config(str(tmp_path)).name == "default"


def test_one_process_at_a_time(tmp_path):
    """A second process is refused until the first has ended, even by SIGKILL."""
    hold = "import sys, time; from pconv_jax.training import rundir\n"
    hold += "with rundir.lock(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        with (
            pytest.raises(ValueError, match=r"another process trains in .*: wait until it ends"),
            rundir.lock(str(tmp_path)),
        ):
            pass
        first.kill()
        first.wait()
    with rundir.lock(str(tmp_path)):
        assert (tmp_path / rundir.LOCK).exists()


def test_other_versions_are_reported(tmp_path, config, caplog):
    """A run continues under other versions, and a warning names those that changed.

    A run without a record of versions continues.
    """
    workdir = tmp_path / "run"
    rundir.claim(str(workdir), config, DATA)
    before = json.loads((workdir / "versions.json").read_text())
    assert before == versions.libraries()
    (workdir / "versions.json").write_text(json.dumps({**before, "jax": "0.1", "numpy": None}))
    rundir.claim(str(workdir), config, DATA)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"(jax 0.1 -> {before['jax']}, numpy None -> {before['numpy']})" in message
    caplog.clear()
    (workdir / "versions.json").unlink()
    rundir.claim(str(workdir), config, DATA)
    assert not caplog.records


def test_the_implementation_of_the_convolutions_is_recorded(tmp_path, config, caplog):
    """A resume by another implementation is a warning; a run without a record of it continues without one."""
    rundir.claim(str(tmp_path / "run"), config, DATA, "onednn")
    assert json.loads((tmp_path / "run" / "versions.json").read_text()) == {
        **versions.libraries(),
        "convolutions": "onednn",
    }
    rundir.claim(str(tmp_path / "run"), config, DATA, "onednn")
    assert not caplog.records
    rundir.claim(str(tmp_path / "run"), config, DATA, "auto")
    (message,) = [record.getMessage() for record in caplog.records]
    assert "began with other versions (convolutions onednn -> auto): it continues" in message
    caplog.clear()
    rundir.claim(str(tmp_path / "old"), config, DATA)
    rundir.claim(str(tmp_path / "old"), config, DATA, "auto")
    assert not caplog.records


def test_a_config_with_old_keys_is_read_with_the_new_ones(tmp_path, config):
    """The run of an older version can be evaluated, and continues under the config of this version."""
    old = config.to_dict()
    old["train"]["keep"] = old["train"].pop("max_to_keep")
    old["data"]["key"] = old["data"].pop("image_feature")
    del old["eval"]["buckets"], old["eval"]["native"]
    rundir.claim(str(tmp_path), config, DATA)
    (tmp_path / "config.json").write_text(json.dumps(old))
    read = rundir.read_config(str(tmp_path))
    assert validation.flatten(read) == validation.flatten(json.loads(json.dumps(config.to_dict())))
    rundir.claim(str(tmp_path), config, DATA)


FED = {**DATA, "train masks": "9 files", "VGG16 weights": "sha256 ab"}


def test_other_masks_and_weights_are_refused(tmp_path, config):
    """Other masks and weights are refused with both fingerprints, and nothing is changed."""
    rundir.claim(str(tmp_path), config, FED)
    rundir.claim(str(tmp_path), config, dict(FED))
    before = (tmp_path / "data.json").read_bytes()
    message = r"other masks or weights \(train masks: 9 files there, 8 files now; VGG16 weights: sha256 ab there, "
    with pytest.raises(ValueError, match=message + r"sha256 cd now\): choose another --workdir, or restore the masks"):
        rundir.claim(str(tmp_path), config, {**FED, "train masks": "8 files", "VGG16 weights": "sha256 cd"})
    assert (tmp_path / "data.json").read_bytes() == before


def test_a_run_without_a_record_of_its_masks_goes_on(tmp_path, config, caplog):
    """A run of an older version without a record of its masks continues with a log line; they are recorded then."""
    rundir.claim(str(tmp_path), config, DATA)
    rundir.claim(str(tmp_path), config, FED)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "has no record of its train masks, VGG16 weights, so it is not known whether they have changed" in message
    assert json.loads((tmp_path / "data.json").read_text()) == FED
    rundir.claim(str(tmp_path), config, FED)
    assert len(caplog.records) == 1
    with pytest.raises(ValueError, match="other masks or weights"):
        rundir.claim(str(tmp_path), config, {**FED, "train masks": "8 files"})


def test_the_config_is_claimed_under_the_lock(tmp_path, config, monkeypatch):
    """Of two processes with different configs that start at once in a new directory, the second writes nothing."""
    workdir = str(tmp_path / "run")
    with rundir.own(workdir, config, DATA):
        first = (tmp_path / "run" / "config.json").read_bytes()
        other = default.get_config()
        other.seed = 7
        monkeypatch.setattr(rundir, "check", lambda *_: False)  # it looked before the first had written
        with pytest.raises(ValueError, match="another process trains in"), rundir.own(workdir, other, DATA):
            pass
        assert (tmp_path / "run" / "config.json").read_bytes() == first
    monkeypatch.undo()
    with pytest.raises(ValueError, match="another config"), rundir.own(workdir, other, DATA):
        pass


def test_a_killed_claim_leaves_a_lock_alone(tmp_path, config):
    """A run killed between its lock and config.json can start again. A directory that is refused gets no lock."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "lock").write_text("")
    with rundir.own(str(tmp_path / "new"), config, DATA):
        assert (tmp_path / "new" / "config.json").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"), rundir.own(str(tmp_path / "mine"), config, DATA):
        pass
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """The content is written to the disk before the name, so a power failure leaves the old or the new file."""
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(rundir.os, name, lambda *a, name=name, call=call: (done.append(name), call(*a)))
    rundir.write_atomically(str(tmp_path / "table.md"), "text")
    assert done == ["fsync", "replace", "fsync"] and (tmp_path / "table.md").read_text() == "text"


@pytest.mark.parametrize("name", ["data.json", "versions.json"])
def test_files_of_the_same_name_of_others_are_left_alone(tmp_path, name):
    """Files count as a killed process' own only if they have this package's keys."""
    (tmp_path / name).write_text('{"theirs": 1}')
    with pytest.raises(ValueError, match=r"is not empty and has no config\.json: choose another --workdir"):
        rundir.check(str(tmp_path), default.get_config(), DATA)
    assert (tmp_path / name).read_text() == '{"theirs": 1}'
