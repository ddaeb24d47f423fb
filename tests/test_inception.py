"""Tests of Inception for FID: blocks against NumPy, the folded normalisation, the tool, and wrong files."""

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

import loopback
import plain_networks as plain
from pconv_jax import errors
from pconv_jax.evaluation import perceptual
from pconv_jax.models import inception, npz_weights
from pconv_jax.tools import download, prepare_inception


def test_layers():
    """The network has 94 convolutions with 21.8 million parameters, folded normalisation and pytorch-fid's names."""
    shapes = inception.expected()
    kernels = {name: shape for name, shape in shapes.items() if name.endswith("/kernel")}
    assert len(kernels) == 94 and len(shapes) == 188
    assert sum(np.prod(s) for s in shapes.values()) == 21_785_568 - sum(s[-1] for s in kernels.values())
    assert shapes["Conv2d_1a_3x3/kernel"] == (3, 3, 3, 32) and shapes["Mixed_7c/branch_pool/bias"] == (192,)
    flat = {tuple(name.split("/")[:2]): shape[:2] for name, shape in kernels.items() if shape[0] != shape[1]}
    sides = {"Mixed_7a": {"branch7x7x3_2": (1, 7), "branch7x7x3_3": (7, 1)}}
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        sides[block] = {"branch7x7_2": (1, 7), "branch7x7_3": (7, 1)}
        sides[block] |= {f"branch7x7dbl_{i}": ((7, 1), (1, 7))[i % 2] for i in (2, 3, 4, 5)}
    for block in ("Mixed_7b", "Mixed_7c"):
        forks = ("branch3x3_2", "branch3x3dbl_3")
        sides[block] = {name + side: {"a": (1, 3), "b": (3, 1)}[side] for name in forks for side in "ab"}
    assert flat == {(block, name): side for block, of_block in sides.items() for name, side in of_block.items()}


def block(module, shape):
    """Returns `(result by Flax, input, arrays by name)` of a block with random weights."""
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    arrays = plain.draw(npz_weights.shapes(module, jax.ShapeDtypeStruct(shape, np.float32)))
    result = jax.jit(module.apply)({"params": traverse_util.unflatten_dict(arrays, sep="/")}, x)
    return np.asarray(result), x, arrays


def chain(x, arrays, *names):
    """Applies convolutions one after another, each padded to keep the size."""
    for name in names:
        kernel = arrays[f"{name}/kernel"]
        padding = tuple(side // 2 for side in kernel.shape[:2])
        x = plain.conv(x, kernel, arrays[f"{name}/bias"], 1, padding)
    return x


def test_block_a_by_hand():
    """The four branches are in order, and the average ignores positions outside."""
    result, x, arrays = block(inception.BlockA(32), (1, 4, 5, 8))
    expected = [
        chain(x, arrays, "branch1x1"),
        chain(x, arrays, "branch5x5_1", "branch5x5_2"),
        chain(x, arrays, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        chain(plain.average(x), arrays, "branch_pool"),
    ]
    np.testing.assert_allclose(result, np.concatenate(expected, -1), rtol=1e-3, atol=1e-5)


def test_blocks_that_halve_by_hand():
    """The block convolves with stride 2 without padding, and pools by the maximum."""
    result, x, arrays = block(inception.BlockB(), (1, 5, 7, 6))
    single, double = (
        plain.conv(y, arrays[f"{name}/kernel"], arrays[f"{name}/bias"], 2)
        for y, name in (
            (x, "branch3x3"),
            (chain(x, arrays, "branch3x3dbl_1", "branch3x3dbl_2"), "branch3x3dbl_3"),
        )
    )
    expected = np.concatenate([single, double, plain.pool(x, 3, 2)], -1)
    assert result.shape == (1, 2, 3, 384 + 96 + 6)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)


def test_block_c_by_hand():
    """The 7x7 convolutions are split into rows and columns in the published order."""
    result, x, arrays = block(inception.BlockC(16), (1, 4, 5, 8))
    expected = [
        chain(x, arrays, "branch1x1"),
        chain(x, arrays, *(f"branch7x7_{i}" for i in (1, 2, 3))),
        chain(x, arrays, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
        chain(plain.average(x), arrays, "branch_pool"),
    ]
    np.testing.assert_allclose(result, np.concatenate(expected, -1), rtol=1e-3, atol=1e-5)


def test_block_d_by_hand():
    """The split 7x7 convolution precedes one of the two of stride 2; pooling is by the maximum."""
    result, x, arrays = block(inception.BlockD(), (1, 5, 7, 8))
    towers = {
        "branch3x3_2": chain(x, arrays, "branch3x3_1"),
        "branch7x7x3_4": chain(x, arrays, *(f"branch7x7x3_{i}" for i in (1, 2, 3))),
    }
    expected = [plain.conv(y, arrays[f"{name}/kernel"], arrays[f"{name}/bias"], 2) for name, y in towers.items()]
    assert result.shape == (1, 2, 3, 320 + 192 + 8)
    np.testing.assert_allclose(result, np.concatenate([*expected, plain.pool(x, 3, 2)], -1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("maximum", [False, True])
def test_block_e_by_hand(maximum):
    """The branches fork into 1x3 and 3x1; the last block pools by the maximum, as the published weights need."""
    result, x, arrays = block(inception.BlockE(maximum), (1, 3, 4, 8))
    single, double = chain(x, arrays, "branch3x3_1"), chain(x, arrays, "branch3x3dbl_1", "branch3x3dbl_2")
    expected = [
        chain(x, arrays, "branch1x1"),
        chain(single, arrays, "branch3x3_2a"),
        chain(single, arrays, "branch3x3_2b"),
        chain(double, arrays, "branch3x3dbl_3a"),
        chain(double, arrays, "branch3x3dbl_3b"),
        chain(plain.pool(x, 3, 1, 1) if maximum else plain.average(x), arrays, "branch_pool"),
    ]
    np.testing.assert_allclose(result, np.concatenate(expected, -1), rtol=1e-3, atol=1e-5)


def resized(x, axis):
    """Resizes to 299 along an axis: between the two nearest pixel centres, at the rim by the last one."""
    x, size = np.moveaxis(x, axis, 0), x.shape[axis]
    rows = []
    for i in range(299):
        place = min(max((i + 0.5) * size / 299 - 0.5, 0), size - 1)
        low = min(int(place), size - 2)
        rows.append(x[low] + (place - low) * (x[low + 1] - x[low]))
    return np.moveaxis(np.stack(rows), 0, axis)


@pytest.mark.parametrize("size", [(5, 7), (400, 310)])
def test_images_are_enlarged_and_reduced(size):
    """Images are resized bilinearly with half-pixel centres, without antialiasing, and [0, 1] becomes [-1, 1]."""
    image = np.random.default_rng(0).random((1, *size, 3), np.float32)
    expected = 2 * resized(resized(image.astype(np.float64), 1), 2) - 1
    np.testing.assert_allclose(inception.prepared(image), expected, atol=1e-4)


LAYERS = (  # in order: convolutions as (name, channels, side, stride, padding), blocks as (name, class, what it has)
    ("Conv2d_1a_3x3", 32, 3, 2, "VALID"),
    ("Conv2d_2a_3x3", 32, 3, 1, "VALID"),
    ("Conv2d_2b_3x3", 64, 3, 1, "SAME"),
    "maximum",
    ("Conv2d_3b_1x1", 80, 1, 1, "SAME"),
    ("Conv2d_4a_3x3", 192, 3, 1, "VALID"),
    "maximum",
    ("Mixed_5b", inception.BlockA, 32),
    ("Mixed_5c", inception.BlockA, 64),
    ("Mixed_5d", inception.BlockA, 64),
    ("Mixed_6a", inception.BlockB, None),
    ("Mixed_6b", inception.BlockC, 128),
    ("Mixed_6c", inception.BlockC, 160),
    ("Mixed_6d", inception.BlockC, 160),
    ("Mixed_6e", inception.BlockC, 192),
    ("Mixed_7a", inception.BlockD, None),
    ("Mixed_7b", inception.BlockE, False),
    ("Mixed_7c", inception.BlockE, True),
)


def test_layers_follow_each_other():
    """Each layer receives the output of the one before; random features replace the computation."""
    rng, calls = np.random.default_rng(0), []

    def stand_in(apply, args, _, context):
        module = context.module
        if isinstance(module, inception.InceptionFeatures):
            return apply(*args)
        if isinstance(module, nn.Conv):
            assert module.kernel_size[0] == module.kernel_size[1]
            what = (module.name, module.features, module.kernel_size[0], module.strides, module.padding)
        else:
            own = [getattr(module, name) for name in ("pool", "width", "maximum") if hasattr(module, name)]
            what = (module.name, type(module), *(own or [None]))
        calls.append((what, np.asarray(args[0]), rng.standard_normal((1, 7, 9, 2), np.float32)))
        return calls[-1][-1]

    image = rng.random((1, 6, 5, 3), np.float32)
    with nn.intercept_methods(stand_in):
        features = inception.InceptionFeatures().apply({}, image)
    x, left = np.asarray(inception.prepared(image)), iter(calls)
    for layer in LAYERS:
        if layer == "maximum":
            x = plain.pool(x, 3, 2)
            continue
        function, received, returned = next(left)
        assert function == layer
        np.testing.assert_array_equal(received, x, err_msg=layer[0])
        x = np.maximum(returned, 0) if layer[0].startswith("Conv") else returned
    assert next(left, None) is None
    np.testing.assert_allclose(features, x.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


WANTED = {"Conv2d_1a_3x3": (3, 3, 3, 4), "Mixed_5b/branch1x1": (1, 1, 4, 2)}


@pytest.fixture
def few_layers(monkeypatch):
    """Reduces the network to two layers: 22 million random numbers for each wrong file would be too many."""
    shapes = {}
    for layer, shape in WANTED.items():
        shapes |= {f"{layer}/kernel": shape, f"{layer}/bias": shape[-1:]}
    monkeypatch.setattr(inception, "expected", lambda: shapes)


def published(change=()):
    """Returns arrays under pytorch-fid's names."""
    rng, state = np.random.default_rng(0), {"fc.bias": np.ones(1008, np.float32)}
    for layer, (height, width, inputs, outputs) in WANTED.items():
        name = layer.replace("/", ".")
        state[f"{name}.conv.weight"] = rng.standard_normal((outputs, inputs, height, width), np.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.bn.{part}"] = rng.uniform(0.5, 2, outputs).astype(np.float32)
    return {name: array for name, array in (state | dict(change)).items() if array is not None}


def test_normalisation_is_folded(tmp_path, few_layers):
    """A convolution by the kernel and bias of the file equals the convolution and its batch normalisation."""
    state = published()
    safetensors.numpy.save_file(state, tmp_path / "file")
    message = prepare_inception.prepare(str(tmp_path / "out.npz"), file=str(tmp_path / "file"))
    assert f"evaluate --fid_weights={tmp_path}/out.npz" in message
    x = np.random.default_rng(1).standard_normal((2, 5, 6, 3))
    with np.load(tmp_path / "out.npz") as arrays:
        result = plain.conv(x, arrays["Conv2d_1a_3x3/kernel"], arrays["Conv2d_1a_3x3/bias"])
    kernel = state["Conv2d_1a_3x3.conv.weight"].transpose(2, 3, 1, 0)
    plus, minus = (plain.conv(x, sign * kernel, 0) for sign in (1, -1))
    gamma, beta, mean, variance = (
        state[f"Conv2d_1a_3x3.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    expected = np.maximum(((plus - minus) - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Conv2d_1a_3x3.bn.weight": None}, "lacks Conv2d_1a_3x3.bn.weight: give pt_inception-2015-12-05-6726825d.pth"),
        ({"fc.bias": np.ones(1000, np.float32)}, "has 1000 classes and not 1008, so it is torchvision's Inception"),
        ({"Mixed_5b.branch1x1.conv.weight": np.ones((2, 4, 3, 3), np.float32)}, r"shape \(2, 4, 3, 3\); needs \(2, 4"),
        ({"Mixed_5b.branch1x1.bn.running_var": -np.ones(2, np.float32)}, "running_var in .* is negative"),
        ({"Conv2d_1a_3x3.bn.bias": np.full(4, np.inf, np.float32)}, "bn.bias in .* not finite"),
    ],
)
def test_the_tool_refuses(tmp_path, few_layers, change, message):
    safetensors.numpy.save_file(published(change), tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        prepare_inception.prepare(str(tmp_path / "out.npz"), file=str(tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_a_network_the_tool_says_what_to_download(tmp_path):
    url = loopback.closed_port()
    source = download.Published(f"{url}/inception.pth", 95.6, "sha256:00")
    path = f"{tmp_path}/inception.pth"
    message = (
        rf"(?s)cannot download inception.pth .*download \(95.6 MB\)\n  {url}/inception.pth\nput it at\n  {path}\n"
        rf"and run\n  python -m pconv_jax.tools.prepare_inception --out=.* --file={path}"
    )
    with pytest.raises(errors.UserError, match=message):
        prepare_inception.prepare(str(tmp_path / "out.npz"), source=source)
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"needs 6726825d: download it again .https://github.com/mseitzer/pytorch-fid"):
        prepare_inception.prepare(
            str(tmp_path / "out.npz"), file=str(tmp_path / "pt_inception-2015-12-05-6726825d.pth")
        )


def test_wrong_files_are_refused(tmp_path, few_layers):
    """Wrong names, shapes and content are refused, with the command that makes the right file."""
    path = str(tmp_path / "f.npz")
    with pytest.raises(errors.UserError, match=r"no Inception weights at .*: run python -m .*prepare_inception"):
        inception.load(path)
    np.savez(path, **{"Conv2d_1a_3x3/kernel": np.ones((3, 3, 3, 8), np.float32)})
    with pytest.raises(ValueError, match=r"Conv2d_1a_3x3/kernel in .* has shape \(3, 3, 3, 8\); needs \(3, 3, 3, 4\)"):
        inception.load(path)
    np.savez(path, conv1=np.ones(3))
    with pytest.raises(ValueError, match="lacks Conv2d_1a_3x3/kernel; it has conv1"):
        inception.load(path)


@pytest.mark.slow
def test_the_whole_network(tmp_path):
    """Images of any size give 2048 features each, which depend on colour, place and contrast, and not on batch mates.

    The same code agrees with pytorch-fid 0.3.0 on torch to 2e-6 of features up to 7 (random weights; 64, 299 and 400
    pixels).
    """
    np.savez(tmp_path / "inception.npz", **plain.draw(inception.expected()))
    measure = perceptual.Fid(str(tmp_path / "inception.npz"))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)
    result = np.asarray(measure._features(images))
    assert result.shape == (3, 2048) and np.isfinite(result).all() and result.std(axis=0).max() > 0
    again = np.asarray(measure._features(images[[1, 1, 0]]))
    np.testing.assert_allclose(again, result[[1, 1, 0]], rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(measure._features(images[..., ::-1])) - result).max() > 1e-3
