"""Tests of weights files: they load as they were exported, and other files are refused in one line."""

import json
import os

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import networks
import runs
from pconv_jax.errors import UserError
from pconv_jax.inpainting import inpainter, pyramid, weights_file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns a run with batch normalisation whose averaged parameters differ from the last ones."""
    config = runs.tiny(**{"optim.ema": 0.9})
    state = networks.random_state(config)
    state = state.replace(ema=jax.tree.map(lambda x: 0.5 * x, state.params))
    return networks.save_run(tmp_path_factory.mktemp("runs") / "run", config, [(state, 20.0)])


@pytest.fixture(scope="module")
def exported(run):
    """Returns the path of the run's weights file."""
    return networks.export(run, f"{run}.safetensors", licence="CC0", threshold=6, band=3)


def example():
    """Returns an image, uint8 `[40, 56, 3]`, and its mask."""
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    mask = np.ones((40, 56), np.uint8)
    mask[8:32, 10:40] = 0
    return image, mask


def test_a_file_fills_as_its_run(run, exported):
    """The file fills as the averaged parameters do, up to half precision, with the pyramid's settings in the file."""
    fill = inpainter.Inpainter.from_weights(exported)
    assert fill.settings == pyramid.Settings(threshold=6, band=3)
    image, mask = example()
    plain = inpainter.Inpainter.from_run(run)
    plain.settings = fill.settings
    difference = np.abs(fill(image, mask).astype(int) - plain(image, mask))
    assert difference.max() <= 2
    assert weights_file.read(exported).about == {"name": "tiny", "step": 0, "licence": "CC0", "credits": ""}


def test_a_network_trained_in_bfloat16_fills_in_float32(run, exported, tmp_path):
    """A run and its file fill the same pixels whether `model.dtype` of the training was bfloat16 or float32."""
    config = runs.tiny(**{"optim.ema": 0.9, "model.dtype": "bfloat16"})
    state = networks.random_state(config)
    state = state.replace(ema=jax.tree.map(lambda x: 0.5 * x, state.params))
    trained = networks.save_run(tmp_path / "run", config, [(state, 20.0)])
    file = networks.export(trained, tmp_path / "weights.safetensors", threshold=6, band=3)
    image, mask = example()
    for one, other in (
        (inpainter.Inpainter.from_run(trained), inpainter.Inpainter.from_run(run)),
        (inpainter.Inpainter.from_weights(file), inpainter.Inpainter.from_weights(exported)),
    ):
        np.testing.assert_array_equal(one(image, mask), other(image, mask))


def test_kernels_are_half_precision_and_statistics_are_not(exported):
    """Kernels, which are most of the file, are float16.

    Running variances stay float32, because they may be too small for it.
    """
    with safetensors.safe_open(exported, framework="numpy") as file:
        dtypes = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert dtypes["params/enc1/conv/kernel"] == np.float16
    assert dtypes["batch_stats/enc2/norm/batch/var"] == dtypes["params/enc1/conv/bias"] == np.float32


def test_exporting_twice_gives_the_same_bytes(run, exported, tmp_path):
    """Exporting a run twice with the same flags gives the same file."""
    again = networks.export(run, str(tmp_path / "again.safetensors"), licence="CC0", threshold=6, band=3)
    with open(again, "rb") as one, open(exported, "rb") as other:
        assert one.read() == other.read()


def rewritten(path, out, change):
    """Writes a copy whose tensors and metadata `change(flat, metadata)` has altered."""
    with safetensors.safe_open(path, framework="numpy") as file:
        flat = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["pconv_jax"])
    change(flat, metadata)
    safetensors.numpy.save_file(flat, out, {"pconv_jax": json.dumps(metadata)})


def flip_a_bit(flat, _):
    flat["params/enc1/conv/kernel"].view(np.uint16)[0, 0, 0, 0] ^= 1


def drop_a_tensor(flat, _):
    del flat["params/enc2/conv/kernel"]


def other_shape(flat, _):
    flat["params/enc1/conv/bias"] = np.zeros(3, np.float32)


def with_metadata(**changes):
    def change(_, metadata):
        metadata.update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip_a_bit, "is damaged: its tensors do not have the recorded SHA-256"),
        (drop_a_tensor, r"does not hold the tensors of its network \(params/enc2/conv/kernel\)"),
        (other_shape, r"does not hold the tensors of its network \(params/enc1/conv/bias\)"),
        (with_metadata(version=2), "its format has the version 2; needs 1: export it again"),
        (with_metadata(model={}), "has metadata that do not describe a network"),
        (with_metadata(model=[]), "has metadata that do not describe a network"),
        (with_metadata(model={"kernels": [3], "dtype": "float32", "kind": "zero", "new": 1}), "this version .* lacks"),
        (with_metadata(pyramid={"threshold": -1}), "the pyramid's settings are"),
        (with_metadata(pyramid={"steps": 1}), "has metadata that do not describe a network"),
        (with_metadata(about=None), "has metadata that do not describe a network"),
    ],
)
def test_foreign_and_damaged_files_are_refused(exported, tmp_path, change, message):
    """Each wrong file causes a UserError with its name."""
    path = str(tmp_path / "changed.safetensors")
    rewritten(exported, path, change)
    with pytest.raises(UserError, match=f"changed.safetensors.* {message}|changed.safetensors: {message}"):
        inpainter.Inpainter.from_weights(path)


def test_files_that_are_no_safetensors_are_refused(exported, tmp_path):
    """A missing file, text, a truncated file, a folder, and tensors without metadata are refused."""
    path = str(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"no weights at .*w.safetensors: give a file that tools.export_weights wrote"):
        weights_file.read(path)
    with open(exported, "rb") as file:
        content = file.read()
    for damaged in (b"", b"weights", content[:100], content[:-7]):
        with open(path, "wb") as file:
            file.write(damaged)
        with pytest.raises(UserError, match=r"w.safetensors cannot be read as safetensors"):
            weights_file.read(path)
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    with pytest.raises(UserError, match="its format has the version None"):
        weights_file.read(path)
    with pytest.raises(UserError, match="no weights at"):
        weights_file.read(str(tmp_path))


def test_what_cannot_be_exported(run, tmp_path):
    """A file that exists, a directory that does not and a missing run are refused, and nothing is written."""
    (tmp_path / "there").write_text("x")
    for options, message in (
        ({"path": str(tmp_path / "there")}, "exists: choose another --out, or pass --overwrite"),
        ({"path": str(tmp_path / "no" / "w")}, "no folder .*: make it"),
        ({"path": str(tmp_path / "w"), "run": str(tmp_path)}, "holds no run"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            networks.export(**{"run": run, **options})
    assert os.listdir(tmp_path) == ["there"]


def test_values_beyond_half_precision_are_refused(tmp_path):
    """Kernels beyond float16's range, which ends at 65504, are refused."""
    model, variables = networks.random()
    variables = jax.tree.map(lambda x: x * 1e6, variables)
    section = {name: getattr(model, name) for name in ("depth", "width", "max_width", "kernels", "norm", "center")}
    weights = weights_file.Weights(section, variables, None, {})
    with pytest.raises(UserError, match=r"kernel is not finite in float16: train again"):
        weights_file.write(str(tmp_path / "w"), weights)
