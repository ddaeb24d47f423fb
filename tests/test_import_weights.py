"""Tests of the import of others' networks: every layout computes what its network does, and nothing else is written."""

import json
import os
import pickle

import jax
import numpy as np
import pytest

import other_networks
import vgg_files
from pconv_jax.errors import UserError
from pconv_jax.inpainting import inpainter, weights_file
from pconv_jax.tools import download, import_weights

LAYOUTS = list(other_networks.NETWORKS)


def checkpoint(path, layout, change=(), **options):
    """Writes a checkpoint of a layout with `change` in its state dict; None removes a tensor. Returns the path."""
    other = other_networks.NETWORKS[layout]
    tensors = {**other_networks.state(other), **dict(change)}
    tensors = {name: value for name, value in tensors.items() if value is not None}
    vgg_files.write_checkpoint(path, other.nest(tensors), **options)
    return str(path)


def masks(size):
    """Yields an irregular mask, one that is valid everywhere and one that is all hole, `[1, H, W, 1]`."""
    rng = np.random.default_rng(1)
    mask = (rng.uniform(size=(1, *size, 1)) < 0.5).astype(np.float32)
    mask[:, : size[0] // 2, size[1] // 3 :] = 0
    yield from (mask, np.ones_like(mask), np.zeros_like(mask))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layer_is_that_of_the_network(tmp_path, layout):
    """Features of every layer and the output agree within 1e-5 of their largest value, on several masks and sizes."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which computes the other network")
    other, out = other_networks.NETWORKS[layout], str(tmp_path / "out.safetensors")
    import_weights.import_file(checkpoint(tmp_path / "net.pth", layout), out)
    weights = weights_file.read(out)
    model = weights.model().clone(conv_impl="xla")
    call = jax.jit(lambda image, mask: model.apply(weights.variables, image, mask, capture_intermediates=True))
    unit = 2 ** len(other.kernels)
    for size in ((unit, unit), (2 * unit, unit)) + (((20, 27),) if layout == "crai" else ()):
        for mask in masks(size):
            image = np.random.default_rng(2).uniform(size=(1, *size, other.channels)).astype(np.float32) * mask
            expected, expected_output = other_networks.apply(torch, other, other_networks.state(other), image, mask)
            (output, _), captured = call(image, mask)
            for layer, values in expected.items():
                ours = captured["intermediates"][layer]["__call__"][0][0]
                np.testing.assert_allclose(ours, values, atol=1e-5 * np.abs(values).max(), rtol=0, err_msg=layer)
            np.testing.assert_allclose(output, expected_output, atol=1e-5 * np.abs(expected_output).max(), rtol=0)


CRAI = {  # depths, kernels and options of published and possible networks of climatereconstructionAI
    "minimum-1": ((7, 5, 3), {"circular": False}),
    "five stages": ((7, 5, 5, 3, 3), {"first_norm": False}),
    "two variables": ((5, 3), {"channels": 2}),
    "without normalisation": ((7, 5), {"norm": None, "first_norm": False}),
}


@pytest.mark.parametrize("name", CRAI)
def test_other_climate_networks_are_those_of_pytorch(tmp_path, name):
    """Other depths, kernels, channels, paddings and normalisations agree per layer, also on rectangular grids."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which computes the other network")
    other = other_networks.crai(CRAI[name][0], **CRAI[name][1])
    state, path, out = other_networks.state(other), str(tmp_path / "net.pth"), str(tmp_path / "out.safetensors")
    vgg_files.write_checkpoint(path, other.nest(state))
    report = import_weights.import_file(path, out, padding="circular" if other.circular else "hole", grid="18x36")
    assert ("sums the mask of each channel" in report) == (other.channels > 1)
    weights = weights_file.read(out)
    model = weights.model().clone(conv_impl="xla")
    call = jax.jit(lambda image, mask: model.apply(weights.variables, image, mask, capture_intermediates=True))
    for mask in masks((18, 36)):
        image = np.random.default_rng(2).normal(size=(1, 18, 36, other.channels)).astype(np.float32) * mask
        expected, expected_output = other_networks.apply(torch, other, state, image, mask)
        (output, _), captured = call(image, mask)
        for layer, values in expected.items():
            ours = captured["intermediates"][layer]["__call__"][0][0]
            np.testing.assert_allclose(ours, values, atol=1e-6 * max(np.abs(values).max(), 1), rtol=0, err_msg=layer)
        np.testing.assert_allclose(output, expected_output, atol=1e-6 * max(np.abs(expected_output).max(), 1), rtol=0)


def _grown(state, name, axis, count):
    """Returns the kernel of a layer, and its kernel of ones, with further channels along an axis."""
    kernels = {f"{name}.partial_conv.{part}_conv.weight": 0 for part in ("input", "mask")}
    for key in kernels:
        shape = list(state[key].shape)
        shape[axis] += count
        kernels[key] = np.ones(shape, np.float32)
    return kernels


REFUSED_CRAI = {
    "lstm": (lambda s: {"encoder.1.recurrent_conv.lstm_conv.weight": np.ones((4, 4, 3, 3), np.float32)}, "recurrent"),
    "attention": (lambda s: {"attention_module.0.partial_conv.x": np.ones(3, np.float32)}, "has an attention module"),
    "target": (lambda s: _grown(s, "encoder.0", 1, 2), "takes 3 channels and returns 1"),
    "fusion": (lambda s: _grown(s, "encoder.1", 1, 1), "further data enter at encoder.1"),
    "widths": (lambda s: _grown(s, "encoder.2", 0, 2), "encoder.2 has 10 channels after 8; only networks whose"),
    "no skips": (lambda s: _grown(s, "decoder.0", 1, -8), "has no skip connections"),
    "last norm": (
        lambda s: {f"decoder.2.partial_conv.bn.{n}": np.ones(1, np.float32) for n in ("weight", "bias")},
        "its last layer is normalised",
    ),
}


@pytest.mark.parametrize("name", REFUSED_CRAI)
def test_climate_networks_of_other_kinds_are_refused(tmp_path, name):
    """Recurrent, attentive, fused, skipless and other networks are refused with the reason, and nothing is written."""
    change, message = REFUSED_CRAI[name]
    path = checkpoint(tmp_path / "net.pth", "crai", change(other_networks.state(other_networks.NETWORKS["crai"])))
    with pytest.raises(UserError, match=message):
        import_weights.import_file(path, str(tmp_path / "out.safetensors"))
    assert os.listdir(tmp_path) == ["net.pth"]


def test_climate_networks_of_normalised_data_are_refused(tmp_path):
    """A checkpoint with statistics of its data is refused: its network expects standardised values."""
    state = other_networks.state(other_networks.NETWORKS["crai"])
    content = {"labels": ["1"], "stat_target": {"mean": [1.0], "std": [2.0]}, "1": {"n_iter": 1, "model": state}}
    vgg_files.write_checkpoint(tmp_path / "net.pth", content)
    with pytest.raises(UserError, match="normalised by statistics in the file"):
        import_weights.import_file(str(tmp_path / "net.pth"), str(tmp_path / "out.safetensors"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch_names_are_those_of_the_files(tmp_path, layout):
    """Both formats of checkpoints are read, with `module.` before the names as well; the layout is recognised."""
    state = other_networks.state(other_networks.NETWORKS[layout])
    vgg_files.write_checkpoint(tmp_path / "flat.pth", {f"module.{name}": x for name, x in state.items()}, legacy=True)
    written = []
    for path in (str(tmp_path / "flat.pth"), checkpoint(tmp_path / "nested.pth", layout)):
        report = import_weights.import_file(path, str(tmp_path / "out"), overwrite=True)
        weights = weights_file.read(str(tmp_path / "out"))
        written.append(weights_file.sha256(weights.variables))
        assert weights.about["layout"] == layout and len(weights.about["source_sha256"]) == 64
        assert weights.about["licence"] and weights.about["origin"].startswith("github.com/")
        counts = [
            int(line.split()[0]) for line in report.splitlines() if " tensors used" in line or "not needed" in line
        ]
        assert sum(counts) == len(state)
    assert written[0] == written[1]


def test_soft_masks(tmp_path, caplog):
    """With `soft_mask`, the network of naoto0804 computes what it does in PyTorch on masks between 0 and 1."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which computes the other network")
    other, out = other_networks.NETWORKS["naoto0804"], str(tmp_path / "out.safetensors")
    import_weights.import_file(checkpoint(tmp_path / "net.pth", "naoto0804"), out)
    weights = weights_file.read(out)
    model = weights.model().clone(conv_impl="xla", soft_mask=True)
    mask = next(masks((128, 128)))
    mask = mask * np.random.default_rng(3).uniform(0.1, 1, mask.shape).astype(np.float32)
    image = np.random.default_rng(2).uniform(size=(1, 128, 128, 3)).astype(np.float32)
    # The mask is applied by the data set as well.
    _, expected = other_networks.apply(torch, other, other_networks.state(other), image, mask)
    output, _ = jax.jit(model.apply)(weights.variables, image, mask)
    np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    _, hard = other_networks.apply(torch, other, other_networks.state(other), image, (mask > 0).astype(np.float32))
    assert np.abs(hard - expected).max() > 0.01 * np.abs(expected).max()
    inpainter.Inpainter.from_weights(out, soft_mask=True)
    assert not caplog.records
    inpainter.Inpainter.from_weights(out)
    assert "was trained with soft masks" in caplog.text


def test_soft_rims_of_photographs(tmp_path):
    """Filling with soft rims keeps valid pixels and gives another result than with hard ones."""
    out = str(tmp_path / "out.safetensors")
    import_weights.import_file(checkpoint(tmp_path / "net.pth", "naoto0804"), out)
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    mask = np.ones((128, 128), np.uint8)
    mask[40:60, 40:60] = 0
    hard, soft = (inpainter.Inpainter.from_weights(out, 128, soft_mask=soft)(image, mask) for soft in (False, True))
    np.testing.assert_array_equal(soft[mask == 1], image[mask == 1])
    assert (soft != hard).any()


def test_photographs_are_filled_by_imported_weights(tmp_path):
    """The weights file fills as those of a run; a network whose width wraps around is refused."""
    out = str(tmp_path / "out.safetensors")
    import_weights.import_file(checkpoint(tmp_path / "net.pth", "mmagic"), out)
    image, mask = np.full((128, 128, 3), 100, np.uint8), np.ones((128, 128), np.uint8)
    mask[40:60, 40:60] = 0
    filled = inpainter.Inpainter.from_weights(out, tile=128)(image, mask)
    np.testing.assert_array_equal(filled[mask == 1], 100)
    import_weights.import_file(checkpoint(tmp_path / "net.pth", "crai"), out, overwrite=True)
    with pytest.raises(UserError, match=r"width wraps around, .* use python -m pconv_jax.infill"):
        inpainter.Inpainter.from_weights(out)


class Trap:
    """Creates a directory when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


NAOTO = {
    "missing": (
        {"enc_3.bn.weight": None, "dec_1.conv.input_conv.bias": None},
        "enc_3.bn.weight is missing; dec_1.*bias",
    ),
    "shape": (
        {"enc_2.conv.input_conv.weight": np.zeros((8, 4, 3, 5), np.float32)},
        r"enc_2.conv.input_conv.weight has shape \(8, 4, 3, 5\); needs \(8, 4, 3, 3\)",
    ),
    "surplus": ({"enc_2.attention": np.ones(3, np.float32)}, "enc_2.attention belongs to no layer"),
    "not finite": ({"dec_1.conv.input_conv.bias": np.full(3, np.nan, np.float32)}, "bias is not finite"),
    "other mask": ({"enc_1.conv.mask_conv.weight": np.zeros((4, 3, 7, 7), np.float32)}, "is not all ones"),
    "foreign": ({"enc_1.conv.input_conv.weight": None}, "are of no known layout; known are mmagic, naoto0804, crai"),
}


@pytest.mark.parametrize("problem", NAOTO)
def test_wrong_tensors_are_listed(tmp_path, problem):
    """Missing, wrongly shaped, surplus and not finite tensors are named, and nothing is written."""
    change, message = NAOTO[problem]
    path = checkpoint(tmp_path / "net.pth", "naoto0804", change)
    with pytest.raises(UserError, match=message) as error:
        import_weights.import_file(path, str(tmp_path / "out.safetensors"))
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == ["net.pth"]


def test_damaged_and_foreign_files_are_refused(tmp_path):
    """Damaged files, Keras' HDF5 and a pickle that would run code give one line, and nothing is written."""
    whole = (tmp_path / "net.pth").read_bytes() if checkpoint(tmp_path / "net.pth", "tanimutomo") else b""
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    vgg_files.write_checkpoint(tmp_path / "net.pth", {"model": {}, "x": Trap(tmp_path / "trap")})
    trap = (tmp_path / "net.pth").read_bytes()
    cases = {
        whole[:-100]: "is no torch state dict",
        bytes(altered): "is no torch state dict",
        b"": "is no torch state dict",
        b"weights": "is no torch state dict",
        pickle.dumps([1, 2]): "is no torch state dict",
        b"\x89HDF\r\n\x1a\n": "PConv-Keras, whose network cannot be imported faithfully: it adds biases in holes",
        trap: "nothing was run",
    }
    for content, message in cases.items():
        (tmp_path / "net.pth").write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            import_weights.import_file(str(tmp_path / "net.pth"), str(tmp_path / "out"))
        assert "\n" not in str(error.value) and os.listdir(tmp_path) == ["net.pth"]
    for content in ({"model": {}}, {"labels": ["1"]}, ["x"], {"a": 1}):
        vgg_files.write_checkpoint(tmp_path / "net.pth", content)
        with pytest.raises(UserError, match="it holds no state dict"):
            import_weights.import_file(str(tmp_path / "net.pth"), str(tmp_path / "out"))


def test_names_and_flags_are_checked(tmp_path):
    """The digits in mmagic's file names are those of the SHA-256; another layout or an existing file is refused."""
    path = checkpoint(tmp_path / "pconv_places-12345678.pth", "mmagic")
    with pytest.raises(UserError, match=r"has sha256 .*; needs 12345678: download it again"):
        import_weights.import_file(path, str(tmp_path / "out"))
    renamed = checkpoint(tmp_path / "x.pth", "mmagic")
    with pytest.raises(UserError, match="have the names of mmagic, and --layout=naoto0804: leave it out"):
        import_weights.import_file(renamed, str(tmp_path / "out"), layout="naoto0804")
    with pytest.raises(UserError, match="no file"):
        import_weights.import_file(str(tmp_path / "none.pth"), str(tmp_path / "out"))
    with pytest.raises(UserError, match="exists: choose another"):
        import_weights.import_file(renamed, path)


def test_download(tmp_path, monkeypatch):
    """A download is imported and removed; without a network the message names address, place and command."""
    source = checkpoint(tmp_path / "net.pth", "mmagic")
    published = {"there": download.Published(f"file://{source}", None, "sha256:")}
    out = str(tmp_path / "out.safetensors")
    import_weights.fetch("there", out, published)
    assert sorted(os.listdir(tmp_path)) == ["net.pth", "out.safetensors"]

    def unreachable(*_):
        raise download.Unreachable("no network")

    monkeypatch.setattr(download, "get", unreachable)
    for name, file in import_weights.PUBLISHED.items():
        with pytest.raises(UserError) as error:
            import_weights.fetch(name, str(tmp_path / "new"))
        assert all(
            text in str(error.value) for text in (file.url, str(tmp_path / file.name), "import_weights", "no network")
        )


def test_the_climate_network_is_imported(tmp_path, shared_data):
    """The published network of climatereconstructionAI: each of its 33 tensors is used or listed."""
    out = str(tmp_path / "crai.safetensors")
    report = import_weights.import_file(str(shared_data("crai/20crtasgn72.pth")), out, north_first=True)
    assert "The file does not record the grid" in report and weights_file.read(out).about["north_first"] is True
    assert "23 of 33 tensors used" in report and "6 not needed" in report and "4 not needed" in report
    weights = weights_file.read(out)
    assert weights.about["source_sha256"].startswith("792241d0") and weights.about["step"] == 1000000
    assert json.loads(json.dumps(weights.section))["kernels"] == [7, 5, 5]
    assert (weights.section["padding"], weights.section["negative_slope"]) == ("circular", 0.01)
