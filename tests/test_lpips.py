"""Tests of LPIPS: layers, channel order and scaling against NumPy, the tool that makes its file, and wrong files."""

import hashlib
import json
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import loopback
import pictures
import plain_networks as plain
from pconv_jax import errors
from pconv_jax.evaluation import perceptual
from pconv_jax.models import lpips
from pconv_jax.tools import download, prepare_lpips

SIDE = 35
LAYERS = {  # windows are padded to keep the size where CONV does not say otherwise
    "alex": "conv1 tap pool conv2 tap pool conv3 tap conv4 tap conv5 tap",
    "vgg": "conv1_1 conv1_2 tap pool conv2_1 conv2_2 tap pool conv3_1 conv3_2 conv3_3 tap pool "
    "conv4_1 conv4_2 conv4_3 tap pool conv5_1 conv5_2 conv5_3 tap",
}
CONV = {"conv1": (4, (2, 2)), "conv2": (1, (2, 2))}  # stride and padding
POOL = {"alex": 3, "vgg": 2}
PLACES = {  # of torchvision's networks, features.<i>
    "alex": {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10},
    "vgg": {
        **{"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_2": 12, "conv3_3": 14},
        **{"conv4_1": 17, "conv4_2": 19, "conv4_3": 21, "conv5_1": 24, "conv5_2": 26, "conv5_3": 28},
    },
}


@pytest.fixture(scope="module")
def arrays():
    """Returns a random AlexNet and linear layers in the layout of the file."""
    return plain.draw(lpips.expected("alex")) | {"network": np.asarray("alex")}


@pytest.fixture(scope="module")
def file(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "lpips.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def drawn(network, arrays, monkeypatch):
    """Returns the same for any network; VGG16 has a sixteenth of its channels, so that it compiles fast."""
    if network == "alex":
        return arrays
    rows = [(row[0], row[1] // 16, *row[2:]) if len(row) == 5 else row for row in lpips.NETWORKS[network]]
    monkeypatch.setitem(lpips.NETWORKS, network, tuple(rows))
    monkeypatch.setitem(lpips.TAPS, network, tuple(channels // 16 for channels in lpips.TAPS[network]))
    return plain.draw(lpips.expected(network)) | {"network": np.asarray(network)}


def features_by_hand(image, arrays, network):
    """Returns five activations of uint8 images, of unit length along the channels."""
    x = (image / 127.5 - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    result = []
    for layer in LAYERS[network].split():
        if layer == "pool":
            x = plain.pool(x, POOL[network], 2)
        elif layer == "tap":
            result.append(x / (np.sqrt((x**2).sum(-1, keepdims=True)) + 1e-10))
        else:
            x = plain.conv(x, arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"], *CONV.get(layer, (1, (1, 1))))
    return result


def distance_by_hand(image, other, arrays, network):
    pairs = zip(*(features_by_hand(x, arrays, network) for x in (image, other)), strict=True)
    return sum(((a - b) ** 2 * arrays[f"linear{i}"]).sum(-1).mean((1, 2)) for i, (a, b) in enumerate(pairs))


@pytest.mark.parametrize(("network", "side"), [("alex", 35), ("vgg", 17)])
def test_distance_by_hand(network, side, drawn, tmp_path):
    """Layers, normalisation and sum equal NumPy's per image; the distance is symmetric and 0 for equal images.

    The same code agrees with the package `lpips` 0.1.4 on torch to 1.2e-7 (AlexNet and VGG16 with random weights).
    """
    np.savez(tmp_path / "lpips.npz", **drawn)
    measure = perceptual.Lpips(str(tmp_path / "lpips.npz"))
    image, other = (np.stack([pictures.noise(seed + i, side, side) for i in range(2)]) for seed in (0, 5))
    a, b = measure.features(image), measure.features(other)
    for one, expected in zip(a, features_by_hand(image, drawn, network), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-3, atol=1e-5)
    result = measure.distance(a, b)
    np.testing.assert_allclose(result, distance_by_hand(image, other, drawn, network), rtol=1e-4)
    assert result.shape == (2,) and result.min() > 0 and abs(result[0] - result[1]) > 1e-6
    np.testing.assert_array_equal(measure.distance(b, a), result)
    np.testing.assert_array_equal(measure.distance(a, a), 0)
    assert measure.about["network"] == network and json.dumps(measure.about)


def test_layers():
    """The layers have the published sizes: torchvision's features hold 2.5 and 14.7 million parameters."""
    for network, count in (("alex", 2_469_696), ("vgg", 14_714_688)):
        shapes = lpips.expected(network)
        layers = {name: shape for name, shape in shapes.items() if "/" in name}
        assert sum(np.prod(shape) for shape in layers.values()) == count
        assert {name.split("/")[0] for name in layers} == set(PLACES[network])
    assert [lpips.expected("vgg")[f"linear{i}"] for i in range(5)] == [(64,), (128,), (256,), (512,), (512,)]
    assert [lpips.expected("alex")[f"linear{i}"] for i in range(5)] == [(64,), (192,), (384,), (256,), (256,)]


def test_grey_is_seen_as_three_equal_channels(file):
    measure, grey = perceptual.Lpips(file), pictures.noise(0, SIDE, SIDE, 1)[None]
    for a, b in zip(measure.features(grey), measure.features(np.repeat(grey, 3, -1)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("network", lpips.NETWORKS)
def test_smallest_image(network):
    """Every tap has a position at the smallest size, and one has none at a pixel less."""
    import jax

    def taps(side):
        image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        return jax.eval_shape(lambda x: lpips.Features(network).init_with_output(jax.random.key(0), x)[0], image)

    least = lpips.SMALLEST[network]
    assert [tap.shape[-1] for tap in taps(least)] == list(lpips.TAPS[network])
    assert min(tap.size for tap in taps(least)) > 0 == min(tap.size for tap in taps(least - 1))


def test_too_small_images_are_refused(file):
    perceptual.Lpips(file).check_size(31, 99)
    with pytest.raises(ValueError, match=r"images are 64x30; LPIPS with alex needs 31x31 or more: leave --lpips_wei"):
        perceptual.Lpips(file).check_size(64, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": None}, "lacks network; it has"),
        ({"network": np.asarray("squeeze")}, 'has network "squeeze"; needs alex or vgg: make it again with python -m'),
        ({"conv3/bias": None}, "lacks conv3/bias"),
        ({"conv2/kernel": np.ones((3, 3, 64, 192), np.float32)}, r"has shape \(3, 3, 64, 192\); needs \(5, 5, 64, 192"),
        ({"network": np.asarray("vgg")}, "lacks conv1_1/"),
        ({"conv1/bias": np.full(64, np.nan, np.float32)}, "conv1/bias in .* not finite"),
        ({"linear2": np.full(384, -1, np.float32)}, "has negative linear weights"),
        ({"linear2": np.array([None] * 384)}, "is no npz .*allow_pickle"),
    ],
)
def test_wrong_files_are_refused(tmp_path, arrays, change, message):
    np.savez(tmp_path / "f.npz", **{k: v for k, v in (arrays | change).items() if v is not None})
    with pytest.raises(ValueError, match=message):
        lpips.load(str(tmp_path / "f.npz"))


def test_no_npz(tmp_path):
    with pytest.raises(errors.UserError, match=r"no LPIPS weights at .*: run python -m pconv_jax.tools.prepare_lpips"):
        lpips.load(str(tmp_path / "nothing.npz"))
    (tmp_path / "alexnet.pth").write_bytes(b"no npz")
    with pytest.raises(ValueError, match=r"alexnet.pth is no npz .*: make one with python -m .*prepare_lpips --out"):
        lpips.load(str(tmp_path / "alexnet.pth"))


def torchvision(arrays):
    """Returns a network under torchvision's names, with one layer of the classifier."""
    state = {"classifier.6.bias": np.ones(4, np.float32)}
    for layer, place in PLACES[str(arrays["network"])].items():
        state[f"features.{place}.weight"] = np.ascontiguousarray(arrays[f"{layer}/kernel"].transpose(3, 2, 0, 1))
        state[f"features.{place}.bias"] = arrays[f"{layer}/bias"]
    return state


@pytest.fixture(scope="module")
def published_files(arrays, tmp_path_factory):
    """Returns the files `(backbone, linear)` of the random network."""
    return published(arrays, tmp_path_factory.mktemp("given"))


def published(arrays, folder):
    """Writes both files as they can be downloaded."""
    paths = folder / f"{arrays['network']}net", folder / f"{arrays['network']}.pth"
    safetensors.numpy.save_file(torchvision(arrays), paths[0])
    linear = {f"lin{i}.model.1.weight": arrays[f"linear{i}"].reshape(1, -1, 1, 1) for i in range(5)}
    safetensors.numpy.save_file(linear, paths[1])
    return paths


def prepare(tmp_path, published_files, **changes):
    files = {"backbone": str(published_files[0]), "linear": str(published_files[1])}
    return prepare_lpips.prepare(**{"out": str(tmp_path / "out.npz"), **files, **changes})


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_the_tool_writes_what_evaluation_reads(network, drawn, tmp_path, tmp_path_factory):
    """The tool converts torchvision's names and the wheel of lpips, and leaves no other file."""
    published_files = published(drawn, tmp_path_factory.mktemp("published"))
    with zipfile.ZipFile(tmp_path / "lpips.whl", "w") as wheel:
        wheel.writestr(f"lpips/weights/v0.0/{network}.pth", b"of an older version")
        wheel.write(published_files[1], f"lpips/weights/v0.1/{network}.pth")
    for linear in (published_files[1], tmp_path / "lpips.whl"):
        message = prepare(tmp_path, published_files, network=network, linear=str(linear), overwrite=True)
        assert f"LPIPS 0.1 with {network} from {network}net and" in message
        assert f"--lpips_weights={tmp_path}/out.npz" in message
        with np.load(tmp_path / "out.npz") as written:
            assert set(written.files) == set(drawn)
            for name, array in drawn.items():
                np.testing.assert_array_equal(written[name], array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lpips.whl", "out.npz"]


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("backbone", {"features.3.bias": None}, "lacks features.3.bias: give torchvision's AlexNet"),
        ("backbone", {"features.0.weight": np.ones((64, 3, 3, 3), np.float32)}, r"shape \(64, 3, 3, 3\); needs"),
        ("backbone", {"classifier.6.bias": np.full(4, np.nan, np.float32)}, "IMAGENET1K_FEATURES: give IMAGENET1K_V1"),
        ("linear", {"lin4.model.1.weight": None}, r"lacks lin4.model.1.weight: give alex.pth of LPIPS 0.1"),
        ("linear", {"lin1.model.1.weight": np.ones((1, 128, 1, 1), np.float32)}, r"shape \(1, 128, 1, 1\); needs"),
        ("linear", {"lin1.model.1.weight": np.full((1, 192, 1, 1), -1, np.float32)}, "negative linear weights"),
    ],
)
def test_the_tool_refuses(tmp_path, published_files, which, change, message):
    """Other networks and files without LPIPS's weights are refused, and nothing is written."""
    path = published_files[which == "linear"]
    state = {k: v for k, v in (safetensors.numpy.load_file(path) | change).items() if v is not None}
    safetensors.numpy.save_file(state, tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, published_files, **{which: str(tmp_path / "file")})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_tool_refuses_what_is_no_file_of_weights(tmp_path, published_files, monkeypatch):
    with pytest.raises(errors.UserError, match="no file nothing: give the weights, or leave the flag out"):
        prepare(tmp_path, published_files, backbone="nothing")
    (tmp_path / "page").write_text("<!DOCTYPE html>")
    with pytest.raises(ValueError, match=r"page starts with b'<!DOCTYPE html>'; needs a .pth or safetensors"):
        prepare(tmp_path, published_files, linear=str(tmp_path / "page"))
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"has sha256 2d711642; needs 7be5be79: download it again .https://download.py"
    ):
        prepare(tmp_path, published_files, backbone=str(tmp_path / "alexnet-owt-7be5be79.pth"))
    monkeypatch.setattr(prepare_lpips, "_OLD", (hashlib.sha256(published_files[1].read_bytes()).hexdigest(),))
    with pytest.raises(ValueError, match=r"is of LPIPS 0.0, fitted to inputs that were not scaled: give alex.pth of"):
        prepare(tmp_path, published_files)
    (tmp_path / "out.npz").write_text("mine")
    with pytest.raises(errors.UserError, match="pass --overwrite"):
        prepare(tmp_path, published_files)


def test_without_a_network_the_tool_says_what_to_download(tmp_path, published_files):
    """The message has both files with addresses and places, and a command that keeps the arguments passed."""
    url = loopback.closed_port()
    files = {flag: download.Published(f"{url}/{flag}.pth", 1.5, "sha256:00") for flag in ("--backbone", "--linear")}
    with pytest.raises(errors.UserError, match=r"cannot download --backbone.pth and --linear.pth") as caught:
        prepare(tmp_path, published_files, backbone=None, linear=None, sources={"alex": files})
    for flag in files:
        assert f"download (1.5 MB)\n  {url}/{flag}.pth\nput it at\n  {tmp_path}/{flag}.pth\n" in str(caught.value)
        assert f"{flag}={tmp_path}/{flag}.pth" in str(caught.value)
    with pytest.raises(
        errors.UserError,
        match=rf"(?s)cannot download --backbone.pth .*--network=alex --linear={published_files[1]} --out",
    ):
        prepare(tmp_path, published_files, backbone=None, sources={"alex": files})
    assert not list(tmp_path.iterdir())


def test_the_tool_downloads_what_is_not_given(tmp_path, published_files, arrays):
    content = published_files[1].read_bytes()
    with loopback.serving(content) as url:
        file = download.Published(f"{url}/alex.pth", 0.01, f"sha256:{hashlib.sha256(content).hexdigest()}")
        prepare(tmp_path, published_files, linear=None, sources={"alex": {"--linear": file}})
    with np.load(tmp_path / "out.npz") as written:
        np.testing.assert_array_equal(written["linear3"], arrays["linear3"])
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
