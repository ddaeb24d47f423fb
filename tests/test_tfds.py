"""Tests of TFDS datasets: images are read as they were prepared, and an unprepared dataset is reported at once."""

import errno
import importlib
import json
import os
import pathlib
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import runs
import tiny_tfds
from experiments import celeba as celeba_experiment
from experiments import default
from pconv_jax import errors, train
from pconv_jax.data import sources, tfds_source
from pconv_jax.reading import files
from pconv_jax.training import build, validation

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMAND = "python -m pconv_jax.tools.prepare_tfds"


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """Returns `(data_dir, {split: sorted images})` of a small CelebA that TFDS's own builder prepared."""
    directory = tmp_path_factory.mktemp("tfds")
    images = tiny_tfds.celeba(directory / "raw")
    assert tiny_tfds.prepare("celeb_a", directory / "raw", directory / "data")
    return directory / "data", images


def pair(directory, splits=("train", "validation"), key="image", name="celeb_a"):
    return tfds_source.train_and_evaluation(name, splits, key, str(directory))


def test_images_are_the_bytes_that_went_in(celeba):
    """Each image of a split is read once, with the bytes that were prepared."""
    directory, images = celeba
    for splits in (("train", "validation"), ("test", "train[:50%]")):
        for split, source in zip(splits, pair(directory, splits), strict=True):
            images_read = [source[i] for i in range(len(source))]
            if "[" in split:
                assert len(images_read) == 5 and set(images_read) < set(images["train"])
            else:
                assert sorted(images_read) == images[split]
            assert all(sources.decode(encoded).shape == (218, 178, 3) for encoded in images_read)


def test_order_and_splits(celeba):
    """The order is fixed; parts of a split divide it, several splits can be one."""
    directory, images = celeba
    whole, _ = pair(directory)
    first, second = pair(directory, ("train[:3]", "train[3:]"))
    assert [*(first[i] for i in range(3)), *(second[i] for i in range(7))] == [whole[i] for i in range(10)]
    both, _ = pair(directory, ("train+validation", "test"))
    assert sorted(both[i] for i in range(14)) == sorted(images["train"] + images["validation"])
    assert whole[-1] == whole[9]
    with pytest.raises(IndexError):
        whole[10]


def test_names_cost_nothing(celeba):
    """Names are made when they are read, so a million of them cost no memory."""
    train_source, evaluation = pair(celeba[0], ("train[:40%]", "validation"))
    assert list(evaluation.names) == [f"validation[{i}]" for i in range(4)]
    assert train_source.names[3] == "train[:40%][3]"
    many = tfds_source._Names("train", 10**6)
    assert len(many) == 10**6 and many[-1] == "train[999999]" and len(pickle.dumps(many)) < 200
    with pytest.raises(IndexError):
        many[10**6]


def test_sources_can_be_sent_to_workers(celeba):
    """A pickled source keeps only its path, whether it was used or not, and the copy reads the same."""
    source, _ = pair(celeba[0])
    expected = source[3]
    sent = pickle.dumps(sources.DecodedSource(source))
    assert len(sent) < 1000
    copy = pickle.loads(sent)
    assert copy.source == source and copy.source[3] == expected
    np.testing.assert_array_equal(copy[3][0], sources.decode(expected))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "celeba"}, r"TFDS has no dataset celeba: did you mean celeb_a\?"),
        ({"name": "zzzzzz"}, r"TFDS has no dataset zzzzzz: all names: https://www.tensorflow.org/datasets"),
        ({"name": "huggingface:mnist"}, '"huggingface:mnist" is not the name of a TFDS dataset; needs e.g. celeb_a'),
        ({"name": "imagenet_resized/9x9"}, "TFDS cannot open .*9x9 not found .*configurations of .*: 8x8, 16x16, "),
        ({"name": "celeb_a:1.0.0"}, "TFDS cannot open celeb_a:1.0.0: .* only: 2.1.0"),
        (
            {"name": "imagenet2012"},
            rf"imagenet2012 is not prepared in .*imagenet2012/5.1.0: run\n  {COMMAND} imagenet2012 --manual_dir=\S+"
            r"downloads/manual --data_dir=\S+data$",
        ),
        ({"key": "picture"}, r'celeb_a has no image "picture": set data.image_feature to one of its images \(image\)'),
        ({"key": "identity"}, r'celeb_a has no image "identity"'),
        ({"splits": ("trian", "test")}, r'celeb_a has no split "trian" .*one of train \(10\), validation \(4\), test'),
        ({"splits": ("train", "test[")}, r'celeb_a has no split "test\['),
        ({"splits": ("train[:0]", "test")}, r'the split "train\[:0\]" of celeb_a is empty: set it to one of train'),
        ({"splits": ("train", "train[9:]")}, r"train and train\[9:\] of celeb_a share 1 records: set data.train_split"),
        ({"splits": ("train+test", "test")}, r"train\+test and test of celeb_a share 2 records"),
    ],
)
def test_errors_say_what_to_do(celeba, monkeypatch, change, message):
    """Every error explains what to do, and none needs the network."""
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(ValueError, match=message):
        pair(celeba[0], **change)


def test_unprepared_without_a_data_dir(tmp_path, monkeypatch):
    """The command for TFDS's default directory does not name it twice."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=rf"run\n  {COMMAND} celeb_a --manual_dir={tmp_path}/downloads/manual$"):
        pair("")


def changed_copy(celeba, tmp_path, file, change):
    """Copies the prepared dataset with one file changed, or removed where `change` returns None."""
    directory = tmp_path / "a copy"
    shutil.copytree(celeba[0], directory)
    (path,) = directory.glob(f"celeb_a/2.1.0/{file}")
    content = change(path.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return directory


def test_a_search_leaves_no_temporary_files(tmp_path, monkeypatch):
    """Looking for a dataset that is not prepared leaves nothing in the system's temporary directory."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    tfds_source.find("celeb_a", str(tmp_path / "data"))
    assert not list(temporary.iterdir())


def test_another_format_is_refused(celeba, tmp_path):
    """tfrecord has no random access; the command names another directory, as TFDS considers this one prepared."""
    directory = changed_copy(
        celeba, tmp_path, "dataset_info.json", lambda content: content.replace(b"array_record", b"tfrecord")
    )
    other = re.escape(f"'{directory}/array_record'")
    command = rf"{COMMAND} celeb_a '--manual_dir={directory}/downloads/manual' '--data_dir={directory}/array_record'"
    message = rf"celeb_a is prepared as tfrecord in .*needs array_record: .*--config.data.dir={other}: run\n  {command}"
    with pytest.raises(ValueError, match=message):
        pair(directory)


def test_an_incomplete_copy_is_refused(celeba, tmp_path):
    """A copy without a file of records, or without the files that TFDS writes last, is refused."""
    directory = changed_copy(celeba, tmp_path, "celeb_a-validation*", lambda _: None)
    with pytest.raises(
        ValueError, match=rf"celeb_a is incomplete, 1 files are missing, e.g. .*validation.*: copy them .*\n  {COMMAND}"
    ):
        pair(directory)
    (directory / "celeb_a" / "2.1.0" / "features.json").unlink()
    with pytest.raises(ValueError, match="celeb_a is not prepared"):
        pair(directory)


@pytest.mark.parametrize("kept", [0, 0.4, 0.9])
def test_damaged_records_are_unreadable_images(celeba, tmp_path, kept):
    """A truncated shard ends in the same error as a folder of broken files, without a traceback."""
    directory = changed_copy(celeba, tmp_path, "celeb_a-train*", lambda content: content[: int(kept * len(content))])
    source, evaluation = pair(directory)
    with pytest.raises(errors.UserError, match=r"record 2 of train in .*2\.1\.0: "):
        source[2]
    with pytest.raises(ValueError, match=r"10 images in a row cannot be decoded, from train\[1\]: check the files"):
        sources.DecodedSource(source)[1]
    assert sources.DecodedSource(evaluation)[1][1] == 0


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ECONNRESET])
def test_a_disk_that_fails_is_no_damaged_record(number):
    """An error of the disk, which array_record passes on as text, stops the run: no image is replaced."""

    class Failing(list):
        def __getitem__(self, index):
            raise RuntimeError(f"Failed to read record: {os.strerror(number)}")

    source = tfds_source.TfdsSource("/data/celeb_a/2.1.0", "train", "image")
    source.__dict__["_records"] = Failing([b""] * 3)
    with pytest.raises(files.Unreachable, match=r"record 1 of train in .*: mend it, and the same command goes on"):
        sources.DecodedSource(source)[1]


def config_of(directory, **changes):
    return runs.tiny(
        **{"data.source": "tfds", "data.name": "celeb_a", "data.dir": str(directory), "train.steps": 2, **changes}
    )


def test_train_and_evaluate(celeba, tmp_path):
    """A run on the prepared dataset trains, and its scores are those of the validation images."""
    config = config_of(celeba[0])
    validation.validate(config)
    after = train.train(config, str(tmp_path / "run"))
    assert int(after.step) == 2
    report = json.loads((tmp_path / "run" / "eval" / "last.json").read_text())
    network = [record for record in report["records"] if record["method"] == "network"]
    assert len(network) == 10 and all(np.isfinite(record["psnr"]) for record in network)
    assert {record["image"] for record in network} == {f"validation[{i}]" for i in range(4)}


def test_nothing_is_written_when_the_data_is_not_ready(tmp_path):
    """If the dataset is not prepared, the run directory is not created."""
    with pytest.raises(ValueError, match=f"celeb_a is not prepared in .*\n  {COMMAND} celeb_a "):
        train.train(config_of(tmp_path / "none"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("experiment", "dataset"),
    [
        ("celeba", "celeb_a"),
        pytest.param("places2", "places365_small", marks=pytest.mark.slow),
        pytest.param("imagenet", "imagenet2012", marks=pytest.mark.slow),
    ],
)
def test_experiments_stop_without_the_data(tmp_path, experiment, dataset):
    """The error has the command that prepares the dataset, and nothing is written."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path), "TFDS_DATA_DIR": str(tmp_path / "data")}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    arguments = [f"--config=experiments/{experiment}.py", f"--workdir={tmp_path}/run"]
    command = [sys.executable, "-m", "pconv_jax.main", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, None) and "Traceback" not in done.stderr
    assert done.stderr.endswith(f"run\n  {COMMAND} {dataset} --manual_dir={tmp_path}/data/downloads/manual\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["celeba", "places2", "imagenet"])
def test_experiments_on_datasets_are_the_papers_recipe(name):
    """Phases, terms, masks and batch are those of default.py, which is the paper; the bottleneck is 2 x 2."""
    module = importlib.import_module(f"experiments.{name}")
    experiment = module.get_config()
    assert re.search(r"a step takes [\d.]+ s", module.__doc__)
    config, paper = validation.flatten(experiment), validation.flatten(default.get_config())
    assert config["data.size"] / 2 ** config["model.depth"] == paper["data.size"] / 2 ** paper["model.depth"] == 2
    changed = {key for key in config if config[key] != paper[key]}
    assert config["loss.vgg16_weights"]
    data = {"data.source", "data.name", "data.size", "data.crop_scale", "eval.crop_scale"}
    assert changed <= {"name", *data, "model.depth", "loss.vgg16_weights", "eval.examples"}


def test_no_face_is_enlarged():
    """CelebA's images are 178 x 218, and a crop is never enlarged."""
    config = celeba_experiment.get_config()
    assert round(178 * config.data.crop_scale[0]) >= config.data.size


def test_keys_reach_the_source(celeba):
    """The config's splits, key and directory reach the source."""
    config = config_of(celeba[0], **{"data.train_split": "test", "data.eval_split": "train[:20%]"})
    train_source, evaluation = build.image_sources(config)
    assert (train_source.source.split, evaluation.source.split) == ("test", "train[:20%]")
    assert (len(train_source), len(evaluation)) == (2, 2)
    with pytest.raises(ValueError, match='has no image "picture"'):
        build.image_sources(config_of(celeba[0], **{"data.image_feature": "picture"}))
