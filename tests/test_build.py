"""Tests of the sources that a config describes: training and evaluation share no photograph."""

import hashlib

import pictures
import runs
from pconv_jax.training import build


def test_a_folder_of_evaluation_images_inside_the_training_folder(tmp_path):
    """Images below `data.eval_path` are evaluation images and are left out of training."""
    for k, name in enumerate(("a.png", "sub/b.png", "eval/c.png", "eval/d.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pictures.encode(pictures.noise(k)))
    changes = {"data.source": "folder", "data.path": str(tmp_path), "data.eval_path": str(tmp_path / "eval")}
    train, evaluation = build.image_sources(runs.tiny(**changes))
    assert train.names == ("a.png", "sub/b.png")
    assert evaluation.names == ("c.png", "d.png")


def test_a_folder_is_split_when_no_evaluation_folder_is_given(tmp_path):
    """Without `data.eval_path`, `data.eval_fraction` splits a folder, and every photograph is on one side."""
    for k in range(5):
        (tmp_path / f"{k}.png").write_bytes(pictures.encode(pictures.noise(k)))
    changes = {"data.source": "folder", "data.path": str(tmp_path), "data.eval_fraction": 0.4}
    train, evaluation = build.image_sources(runs.tiny(**changes))
    assert len(train) == 3 and len(evaluation) == 2
    assert {*train.names, *evaluation.names} == {f"{k}.png" for k in range(5)}


def test_fingerprints_of_the_inputs_of_a_run(tmp_path):
    """There are fingerprints of the images, and of mask folders and VGG16's weights if the config has them."""
    config = runs.tiny()
    sources = build.image_sources(config)
    assert build.fingerprints(config, *sources).keys() == {"train", "evaluation"}
    for name in ("masks/a.png", "masks/b.png", "other/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "vgg.npz").write_bytes(b"weights")
    changes = {"masks.kind": "folder", "masks.path": str(tmp_path / "masks")}
    changes |= {"loss.vgg16_weights": str(tmp_path / "vgg.npz")}
    changes |= {"eval.masks.kind": "folder", "eval.masks.path": str(tmp_path / "other")}
    fingerprints = build.fingerprints(runs.tiny(**changes), *sources)
    assert fingerprints["VGG16 weights"] == f"sha256 {hashlib.sha256(b'weights').hexdigest()}"
    assert fingerprints["train masks"].startswith("2 files, sha256 ")
    assert fingerprints["evaluation masks"].startswith("1 files, sha256 ")
