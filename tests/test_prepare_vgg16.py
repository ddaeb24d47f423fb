"""Tests of the VGG16 tool: every origin gives the same features, and wrong files are refused without a trace."""

import functools
import hashlib
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import loopback
import vgg_files
from pconv_jax import errors
from pconv_jax.models import vgg
from pconv_jax.tools import download, prepare_vgg16


def features(path):
    module, params = vgg.load(path)
    image = np.random.default_rng(1).uniform(size=(1, 16, 24, 3)).astype(np.float32)
    return module.apply({"params": params}, image)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """Returns the features of the network in the layout that `vgg.load` reads, made without the tool."""
    path = str(tmp_path_factory.mktemp("wanted") / "vgg16.npz")
    vgg_files.write_own(path)
    return features(path)


@pytest.fixture
def refused(tmp_path):
    """Returns `refused(message, **arguments)`, which checks that `prepare` raises the message and writes nothing."""

    def check(message, error=(ValueError, OSError), **arguments):
        def listing():
            return {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

        before = listing()
        with pytest.raises(error, match=message):
            prepare_vgg16.prepare(**{"out": str(tmp_path / "out.npz")} | arguments)
        assert listing() == before

    return check


def published(content, endpoint, cache=None):
    """Serves `content` at the addresses of both published files, with its checksum."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    hub = download.HubFile("timm/vgg16", loopback.COMMIT, "model.safetensors", endpoint, str(cache))
    return {
        "keras": download.Published(f"{endpoint}/folder/weights.h5", 58.9, f"md5:{hashlib.md5(content).hexdigest()}"),
        "torchvision": download.Published(f"{endpoint}/{hub.repo}/{hub.name}", 553.4, checksum, hub),
    }


ORIGINS = {
    "model.safetensors": vgg_files.write_safetensors,
    "zip.pth": vgg_files.write_torch,
    "legacy.pth": functools.partial(vgg_files.write_torch, legacy=True),
    "parameters.pth": functools.partial(vgg_files.write_torch, legacy=True, style="parameter"),
    "oldest.pth": functools.partial(vgg_files.write_torch, legacy=True, style="oldest"),
    "keras.h5": vgg_files.write_keras,
    "nested.h5": functools.partial(vgg_files.write_keras, nested=True),
    "caffe.npz": vgg_files.write_caffe,
    "own.npz": vgg_files.write_own,
    "own_bgr.npz": vgg_files.write_own_bgr,
}
NAMES = {f"{layer}/{kind}" for layer in vgg_files.LAYERS for kind in ("kernel", "bias")} | set(vgg.CONVENTION)


@pytest.mark.parametrize("name", ORIGINS)
def test_every_origin_gives_the_same_features(tmp_path, wanted, name):
    """One network in the names, axes and input convention of each origin; surplus layers are dropped."""
    file, out = str(tmp_path / "weights"), str(tmp_path / "out.npz")
    ORIGINS[name](tmp_path / name)
    os.rename(tmp_path / name, file)  # the name says nothing, the content does
    message = prepare_vgg16.prepare(out, file=file)
    assert ("BGR" in message) == (name in ("keras.h5", "nested.h5", "caffe.npz", "own_bgr.npz")) and out in message
    for a, b in zip(features(out), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    with np.load(out) as written:
        assert set(written.files) == NAMES
    assert sorted(os.listdir(tmp_path)) == ["out.npz", "weights"]


def test_real_weights(tmp_path, shared_data):
    """Caffe's published kernels are transposed as by hand, and the network's inputs are BGR in [0, 255]."""
    file, out = shared_data("vgg16") / "vgg16_caffe_conv1_1-conv3_3.npz", tmp_path / "out.npz"
    prepare_vgg16.prepare(str(out), file=str(file))
    with np.load(file) as original, np.load(out) as written:
        first = original["conv1_1.weight_oihw_bgr"]
        np.testing.assert_array_equal(written["conv1_1/kernel"][0, 2, 1], first[:, 1, 0, 2])
        for layer in vgg_files.LAYERS:
            kernel = next(original[name] for name in original.files if name.startswith(f"{layer}.weight"))
            np.testing.assert_array_equal(written[f"{layer}/kernel"], np.einsum("oihw->hwio", kernel))
            np.testing.assert_array_equal(written[f"{layer}/bias"], original[f"{layer}.bias"])
    module, params = vgg.load(str(out))
    assert (module.order, module.scale, module.std) == ("BGR", 255.0, (1.0, 1.0, 1.0))
    assert module.mean == (103.939, 116.779, 123.68) and module.gain == pytest.approx(1 / 57.63)
    flat = module.apply({"params": params}, np.full((1, 16, 16, 3), 0.45, np.float32))
    assert all(np.isfinite(f).all() and np.max(f) > 0.1 for f in flat)


ONES = np.ones((2, 2), np.float32)
NAN = np.full(4, np.nan, np.float32)


@pytest.mark.parametrize("write", [vgg_files.write_safetensors, vgg_files.write_torch])
def test_wrong_shape(tmp_path, refused, write):
    write(tmp_path / "file", {"features.5.weight": ONES})
    message = r"features.5.weight in .* has shape \(2, 2\); needs \(128, 64, 3, 3\): give VGG16"
    refused(message, ValueError, file=str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.14.weight": None}, "lacks features.14.weight: give VGG16 with torchvision's names"),
        ({"features.16.weight": ONES}, "has features.16.weight, so it is VGG19: give VGG16"),
        ({"classifier.6.bias": NAN}, "so it is torchvision's IMAGENET1K_FEATURES, .*: give IMAGENET1K_V1"),
        ({"features.0.bias": np.full(64, np.inf, np.float32)}, "features.0.bias in .* needs finite floats"),
        ({"features.0.bias": np.ones(64, np.int32)}, "features.0.bias in .* is int32 .* needs finite floats"),
    ],
)
def test_another_network(tmp_path, refused, change, message):
    """Networks of VGG16's shapes with other weights or inputs are refused, as the loss would be silently wrong."""
    vgg_files.write_safetensors(tmp_path / "file", change)
    refused(message, ValueError, file=str(tmp_path / "file"))


def test_wrong_keras_and_npz_files(tmp_path, refused):
    file = str(tmp_path / "file")
    vgg_files.write_keras(file, {"conv2_1": (np.ones((3, 3, 64, 2)), np.ones(2))})
    refused(r"block2_conv1/kernel in .* has shape \(3, 3, 64, 2\); needs \(3, 3, 64, 128\)", file=file)
    vgg_files.write_keras(file)
    with h5py.File(file, "a") as weights:
        del weights["block3_conv3"]
    refused("lacks block3_conv3/kernel, block3_conv3/bias: give VGG16 with keras's names", ValueError, file=file)
    with open(file, "wb") as stream:
        np.savez(stream, something=np.ones(2))
    refused("cannot be read as an npz .it has something; needs conv1_1/kernel", ValueError, file=file)
    with open(file, "wb") as stream:
        np.savez(stream, **{"conv1_1/kernel": np.ones((3, 3, 3, 64))})
    refused("lacks conv1_1/bias", ValueError, file=file)
    with open(file, "wb") as stream:
        vgg_files.write_own(stream, **vgg_files.OWN_RGB | {"std": np.array([1.0, 0.0, 1.0])})
    refused(r"has scale 1.0, mean .*, std \[1. 0. 1.\], gain 1.0; needs positive", ValueError, file=file)


@pytest.mark.parametrize("name", ORIGINS)
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_truncated_file(tmp_path, refused, name, share):
    file = tmp_path / name
    ORIGINS[name](file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    refused(f"{name} .*download it again", ValueError, file=str(file))


def test_not_weights(tmp_path, refused):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    refused(r"page.pth starts with b'<!DOCTYPE html>'; needs VGG16 as", ValueError, file=str(tmp_path / "page.pth"))
    (tmp_path / "empty.h5").touch()
    refused(r"empty.h5 starts with b''; needs VGG16 as", ValueError, file=str(tmp_path / "empty.h5"))
    refused("no file .*nothing.npz: give the weights with --file", errors.UserError, file=str(tmp_path / "nothing.npz"))


def test_checksum_in_the_name(tmp_path, refused):
    """The digits of the sha256 in torch's file names are checked, and the md5 of Keras' file."""
    vgg_files.write_torch(tmp_path / "file")
    digits = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()[:8]
    for name, message in {
        "vgg16-397923af.pth": f"has sha256 {digits}; needs 397923af: download it again .https://download.pytorch.org",
        prepare_vgg16.SOURCES["keras"].name: "has md5 .*; needs 6d6bbae143d832006294945121d1f1fc: download it again",
    }.items():
        os.link(tmp_path / "file", tmp_path / name)
        refused(message, ValueError, file=str(tmp_path / name))
    os.rename(tmp_path / "file", tmp_path / f"vgg16-{digits}.pth")
    prepare_vgg16.prepare(str(tmp_path / "out.npz"), file=str(tmp_path / f"vgg16-{digits}.pth"), source="torchvision")
    refused(
        "has torchvision's weights, and --source=keras: leave --source out",
        **{"file": str(tmp_path / f"vgg16-{digits}.pth"), "source": "keras", "overwrite": True},
    )


def test_out_is_kept(tmp_path, refused, monkeypatch):
    """Only --overwrite replaces a file, and only with a complete one."""
    vgg_files.write_own(tmp_path / "own.npz")
    out, arguments = tmp_path / "out.npz", {"file": str(tmp_path / "own.npz")}
    out.write_text("mine")
    refused("out.npz exists: choose another --out, or pass --overwrite", errors.UserError, **arguments)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left on device")))
        refused("No space left", OSError, overwrite=True, **arguments)
    prepare_vgg16.prepare(str(out), overwrite=True, **arguments)
    vgg.load(str(out))
    refused("is a folder; needs the name of a file", errors.UserError, out=str(tmp_path), **arguments)
    refused(
        "no folder .*nowhere for .*: make it", errors.UserError, out=str(tmp_path / "nowhere" / "out.npz"), **arguments
    )


def test_download(tmp_path, wanted, refused):
    """Keras' file is downloaded and converted; a file with another checksum is refused and removed."""
    vgg_files.write_keras(tmp_path / "weights.h5")
    content = (tmp_path / "weights.h5").read_bytes()
    os.remove(tmp_path / "weights.h5")
    with loopback.serving(content) as url:
        prepare_vgg16.prepare(str(tmp_path / "out.npz"), source="keras", sources=published(content, url))
    np.testing.assert_allclose(features(str(tmp_path / "out.npz"))[2], wanted[2], rtol=1e-3, atol=1e-4)
    assert os.listdir(tmp_path) == ["out.npz"]
    os.remove(tmp_path / "out.npz")
    with loopback.serving(b"x" * 1000) as url:
        message = r"weights.h5 has md5 \w{32}; needs \w{32}: the server at http://127.* sent another file"
        refused(message, ValueError, source="keras", sources=published(content, url))


def test_download_from_the_hub(tmp_path, wanted):
    """Without --source, torchvision's file is downloaded from the hub."""
    vgg_files.write_safetensors(tmp_path / "model")
    content = (tmp_path / "model").read_bytes()
    with loopback.serving(content) as url:
        prepare_vgg16.prepare(str(tmp_path / "out.npz"), sources=published(content, url, tmp_path / "cache"))
    np.testing.assert_allclose(features(str(tmp_path / "out.npz"))[2], wanted[2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("source", "name"), [("keras", "weights.h5"), ("torchvision", "model.safetensors")])
def test_offline(tmp_path, refused, source, name):
    """The error has the file's size and address, the directory to put it into, and the command."""
    sources = published(b"", loopback.closed_port(), tmp_path.parent / "no_cache")
    message = (
        rf"cannot download {name} \(.*[Cc]onnection refused\).*\((58.9|553.4) MB\)\n  {sources[source].url}\n"
        rf"put it at\n  {tmp_path}/{name}\nand run\n"
        rf"  python -m pconv_jax.tools.prepare_vgg16 --out={tmp_path}/out.npz --file={tmp_path}/{name}"
    )
    refused(message, errors.UserError, source=source, sources=sources)


def test_missing_libraries(tmp_path, refused, monkeypatch):
    """A missing library is reported with what to install before anything is downloaded."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("huggingface_hub is not installed: pip install huggingface_hub.*By hand", errors.UserError)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(
        "h5py is not installed: pip install h5py",
        errors.UserError,
        source="keras",
        sources=published(b"", loopback.closed_port()),
    )


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        ("nothing", ["--file=nothing.npz"], "error: no file nothing.npz: give the weights with --file"),
        ("h5py", ["--source=keras"], "error: h5py is not installed: pip install h5py"),
    ],
)
def test_command(tmp_path, missing, arguments, message):
    """A mistake ends the command with one line on stderr, an exit code and no traceback."""
    code = (
        f"import runpy, sys; sys.modules['{missing}'] = None; sys.argv[0] = 'prepare_vgg16';"
        "runpy.run_module('pconv_jax.tools.prepare_vgg16', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, f"--out={tmp_path / 'out.npz'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_training_names_the_tool(tmp_path):
    """Weights that are missing or not converted are reported with the command that makes them."""
    with pytest.raises(errors.UserError, match=r"run python -m pconv_jax.tools.prepare_vgg16 --out=.*nothing.npz"):
        vgg.load(str(tmp_path / "nothing.npz"))
    for name in ("legacy.pth", "keras.h5", "model.safetensors"):
        ORIGINS[name](tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is no npz .*prepare_vgg16 --out=vgg16.npz --file=.*{name}"):
            vgg.load(str(tmp_path / name))
    vgg_files.write_own(tmp_path / "own.npz")
    (tmp_path / "own.npz").write_bytes((tmp_path / "own.npz").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"own.npz is no npz"):
        vgg.load(str(tmp_path / "own.npz"))
