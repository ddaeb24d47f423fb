"""Tests of the inpaint command: its results, warnings and errors, and that no file is written in part."""

import os
import pathlib
import re
import subprocess
import sys

import cv2
import jax
import numpy as np
import PIL.Image
import pytest
from absl import flags

import networks
import runs
from pconv_jax import inpaint
from pconv_jax.errors import UserError
from pconv_jax.inpainting import drawn_masks, inpainter, jobs, photograph, photograph_files, weights_file

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 45, 61


def content(channels=3, seed=0, dtype=np.uint8):
    """Returns noise, so that any pixel that changes is noticed."""
    white = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, white + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def hole():
    """Returns a bool `[H, W]` block of 8.7 % of the image, away from the border."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:22, 20:40] = True
    return mask


def save(path, array, **options):
    """Writes an 8-bit file of any kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array).save(path, **options)


def pixels(path):
    return np.asarray(PIL.Image.open(path))


def tree(path):
    """Returns all files under a directory with their sizes and modification times."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(pathlib.Path(path).rglob("*"))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns a run directory."""
    config = runs.tiny()
    return networks.save_run(tmp_path_factory.mktemp("runs") / "run", config, [(networks.random_state(config), 20.0)])


@pytest.fixture(scope="module")
def network(run):
    return inpaint.Inpainter.from_run(run)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Enters a directory with photo.png, mask.png (white holes) and black.png (the same with black holes)."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "photo.png", content())
    save(tmp_path / "mask.png", hole() * np.uint8(255))
    save(tmp_path / "black.png", ~hole() * np.uint8(255))
    return tmp_path


def fill(network, image, mask, out, polarity="white_hole", **options):
    """Calls `fill_file`, and returns its result and the pixels that it wrote."""
    about, warnings, count = inpaint.fill_file(
        network, jobs.Job(image, mask, out), inpaint.Options(polarity, **options)
    )
    assert count == HEIGHT * WIDTH and "61x45, hole" in about
    return pixels(out), warnings


@pytest.mark.usefixtures("place")
def test_a_photograph_is_filled(network):
    """Valid pixels are the photograph's, pixels in holes the network's, with either polarity."""
    filled, warnings = fill(network, "photo.png", "mask.png", "new/out.png")
    assert not warnings and os.listdir("new") == ["out.png"]
    np.testing.assert_array_equal(filled, network(content(), ~hole()))
    np.testing.assert_array_equal(filled[~hole()], content()[~hole()])
    assert (filled[hole()] != content()[hole()]).mean() > 0.9
    np.testing.assert_array_equal(fill(network, "photo.png", "black.png", "b.png", "black_hole")[0], filled)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("extension", photograph_files.LOSSLESS)
def test_lossless_formats_keep_valid_pixels(network, extension):
    filled, warnings = fill(network, "photo.png", "mask.png", f"out{extension}")
    assert not warnings
    np.testing.assert_array_equal(filled[~hole()], content()[~hole()])


@pytest.mark.usefixtures("place")
def test_jpeg_says_that_it_is_lossy(network):
    _, warnings = fill(network, "photo.png", "mask.png", "out.jpg")
    assert warnings == [".jpg is lossy, valid pixels change slightly: .png, .webp, .tif, .tiff keep them"]


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits(network, place, channels):
    """Valid pixels keep their 16 bits, and the filling uses all 16."""
    array = content(channels, dtype=np.uint16)
    cv2.imwrite("deep.png", array[..., ::-1])
    photo = photograph.read("deep.png", 10**6)
    inpaint.fill_file(network, jobs.Job("deep.png", "mask.png", "out.png"), inpaint.Options("white_hole"))
    filled = photograph.read("out.png", 10**6).pixels
    assert filled.dtype == np.uint16 and filled.shape == (HEIGHT, WIDTH, channels)
    np.testing.assert_array_equal(filled[~hole()], photo.pixels[~hole()])
    within = filled[hole()][(filled[hole()] > 0) & (filled[hole()] < 65535)]
    assert within.size > 100 and (within % 257 != 0).mean() > 0.9  # not 8 bits twice


def test_alpha_is_the_hole(network, place):
    """Transparent pixels are filled and become opaque; the others keep their colour and their alpha."""
    alpha = np.where(hole(), 100, 200).astype(np.uint8)
    save(place / "cut.png", np.dstack([content(), alpha]))
    filled, warnings = fill(network, "cut.png", None, "out.png", "alpha")
    assert not warnings and (filled[hole()][:, 3] == 255).all() and (filled[~hole()][:, 3] == 200).all()
    np.testing.assert_array_equal(filled[..., :3], network(content(), ~hole()))


def test_a_drawn_mask_leaves_alpha_alone(network, place):
    alpha = content(1, seed=3)
    save(place / "rgba.png", np.concatenate([content(), alpha], -1))
    filled, _ = fill(network, "rgba.png", "mask.png", "out.png")
    np.testing.assert_array_equal(filled[..., 3:], alpha)


def test_a_turned_photograph(network, place):
    """The mask fits the photograph as viewers show it, and the result is upright."""
    exif = PIL.Image.Exif()
    exif[274] = 6
    turned = np.rot90(content())
    save(place / "turned.png", turned, exif=exif)
    filled, _ = fill(network, "turned.png", "mask.png", "out.png")
    np.testing.assert_array_equal(filled, network(content(), ~hole()))


@pytest.mark.usefixtures("place")
def test_dilate_and_feather(network):
    """The grown hole is filled, and nothing else changes.

    Feathering leaves nothing of the original content of the drawn hole.
    """
    grown = drawn_masks.grow((~hole()).astype(np.uint8), 4)
    filled, _ = fill(network, "photo.png", "mask.png", "out.png", dilate=4)
    np.testing.assert_array_equal(filled, network(content(), grown))
    feathered, _ = fill(network, "photo.png", "mask.png", "f.png", dilate=4, feather=4)
    np.testing.assert_array_equal(feathered[grown == 1], content()[grown == 1])
    np.testing.assert_array_equal(feathered[hole()], filled[hole()])
    assert (feathered != filled).any()


def test_warnings(network, place):
    """A missing, tiny, huge or too deep hole and a grey mask cause a warning, and the photograph is filled."""

    def warned(hole):
        save(place / "m.png", hole)
        return fill(network, "photo.png", "m.png", "out.png", dilate=0)[1]

    none, tiny, huge = (np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(3))
    tiny[5, 5] = huge[:, 10:] = 255
    assert warned(none) == ["there is no hole: the photograph is written as it is; check --polarity"]
    np.testing.assert_array_equal(pixels("out.png"), content())
    assert warned(tiny) == ["0.04% of the photograph is hole (usual is 1% to 60%): check --polarity"]
    about_size, about_sight = warned(huge)
    assert about_size.startswith("83.61% of the photograph is hole")
    assert "of the hole is farther from valid pixels than the network can see" in about_sight
    (about_grey,) = warned(np.where(hole(), 200, 30).astype(np.uint8))
    assert "100% of m.png is neither black nor white, and was thresholded at half: is it a mask?" in about_grey


def png(array):
    return cv2.imencode(".png", array)[1].tobytes()


CASES = {
    "empty photograph": ({"photo.png": b""}, {}, "photo.png is empty"),
    "damaged photograph": (
        {"photo.png": png(content())[:999]},
        {},
        "photo.png is damaged, or cut off: a PNG without its end",
    ),
    "text for a mask": ({"mask.png": b"white"}, {}, "mask.png is not an image of a known format; needs JPEG"),
    "mask of another size": (
        {"mask.png": png(np.zeros((HEIGHT, WIDTH - 1), np.uint8))},
        {},
        r"photo.png is 61x45 and mask.png 60x45 \(width x height, upright\); masks are not resized",
    ),
    "mask that is turned": ({"mask.png": png(np.zeros((WIDTH, HEIGHT), np.uint8))}, {}, "61x45 and mask.png 45x61"),
    "photograph for a mask": ({"mask.png": png(content(seed=1))}, {}, "mask.png: is a mask in colour"),
    "transparent mask": ({"mask.png": png(content(4))}, {}, "mask.png: is a mask with transparent pixels"),
    "nothing but hole": ({}, {"mask": "black.png", "dilate": 99}, "black.png: is all hole: nothing is left"),
    "alpha of no alpha": ({}, {"mask": None, "polarity": "alpha"}, "photo.png: has no alpha channel"),
    "too many pixels": ({}, {"max_pixels": 2744}, "photo.png is 61x45, more than 2744 pixels"),
    "16 bits as JPEG": (
        {"photo.png": png(content(dtype=np.uint16))},
        {"out": "out.jpg"},
        "photo.png: has 16 bits per channel, which .jpg is not written with: use .png",
    ),
    "transparency as JPEG": ({"photo.png": png(content(4))}, {"out": "out.jpg"}, "photo.png: has transparent pixels"),
    "no photograph": ({"photo.png": None}, {}, "photo.png does not exist: give --image"),
    "no mask": ({"mask.png": None}, {}, "mask.png does not exist: give --mask"),
    "alpha and a mask": ({}, {"polarity": "alpha"}, "--polarity is alpha and the mask mask.png; a mask is white_hole"),
    "white_hole without a mask": ({}, {"mask": None}, "--polarity is white_hole and the mask None"),
    "neither mask nor alpha": ({}, {"mask": None, "polarity": None}, "photo.png: has no alpha channel: give a mask"),
    "no photograph named": ({}, {"image": None}, "the photograph is missing: python -m pconv_jax.inpaint photo.jpg"),
    "no result named": ({}, {"out": None}, "the file to write is missing: python -m pconv_jax.inpaint photo.jpg"),
    "a run and weights": ({}, {"weights": "w"}, "--run and --weights are both given; .* give one of them"),
    "feather beyond dilate": ({}, {"dilate": 2, "feather": 3}, "feather is 3 and dilate 2; .* set dilate to 3 or more"),
    "result that is there": ({"out.png": b"x"}, {}, "out.png is already there: give --overwrite"),
    "result over the photograph": ({}, {"out": "photo.png", "overwrite": True}, "photo.png is an input"),
    "result that is a GIF": ({}, {"out": "out.gif"}, "out.gif is not a file to write"),
    "no run": ({}, {"run": "."}, r". holds no run \(config.json is missing\)"),
}


def parsed(**changes):
    """Returns the parsed flags of a command line."""
    flag_values = flags.FlagValues()
    inpaint.define_flags(flag_values)
    options = {"image": "photo.png", "mask": "mask.png", "polarity": "white_hole", "out": "out.png", **changes}
    flag_values(["inpaint", *(f"--{name}={value}" for name, value in options.items() if value is not None)])
    return flag_values


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, run, network, place, monkeypatch, capsys):
    """The error names the wrong input and what would work; nothing is computed or written."""
    files, changes, message = CASES[case]
    for name, bytes_of in files.items():
        (place / name).unlink(missing_ok=True)
        if bytes_of is not None:
            (place / name).write_bytes(bytes_of)
    monkeypatch.setattr(network, "fill", lambda *_, **__: pytest.fail("computed"))
    if "run" not in changes:
        monkeypatch.setattr(inpainter.Inpainter, "from_run", lambda *_, **__: network)
    before = tree(place)
    try:
        inpaint.main(parsed(**{"run": run, **changes}))
        output = ""
    except ValueError as error:
        output = str(error)
    except SystemExit as end:
        assert end.code == 1
        output = capsys.readouterr().err
    assert re.search(message, output), output
    assert tree(place) == before


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("operands could not be broadcast together with shapes (2,) (3,)"), ValueError),
        (jax.errors.JaxRuntimeError("INTERNAL: something else"), jax.errors.JaxRuntimeError),
    ],
)
def test_a_defect_while_filling_is_raised(error, kind, run, network, monkeypatch):
    """An exception in the network's code is neither reported as a user's error nor skipped as a bad photograph."""

    def fill(*_, **__):
        raise error

    monkeypatch.setattr(network, "fill", fill)
    monkeypatch.setattr(inpainter.Inpainter, "from_run", lambda *_, **__: network)
    with pytest.raises(kind) as caught:
        inpaint.main(parsed(run=run))
    assert caught.value is error


def test_a_folder(network, place, capsys):
    """Images that fail are reported and counted; the others are filled, with progress, rates and warnings by name."""
    for k in range(4):
        save(place / "photos" / "deep" / f"{k}.png", content(seed=k))
        save(place / "masks" / "deep" / f"{k}.png", hole() * np.uint8(255))
    (place / "photos" / "deep" / "1.png").write_bytes(b"no image")
    save(place / "masks" / "deep" / "2.png", np.zeros((9, 9), np.uint8))
    save(place / "masks" / "deep" / "3.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    matched = jobs.match("photos", "masks", "out", False)
    failed = inpaint.fill_all(network, matched, inpaint.Options("white_hole"))
    assert list(failed) == ["photos/deep/1.png", "photos/deep/2.png"]
    assert sorted(os.listdir("out/deep")) == ["0.png", "3.png"]
    np.testing.assert_array_equal(pixels("out/deep/0.png"), network(content(), ~hole()))
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("out/deep/0.png: 61x45, hole 8.74%  (1/4, ") and lines[0].endswith(" left)")
    assert "images/s, 0m 00s left)" in lines[1] and len(lines) == 3
    assert lines[2].startswith("2 of 4 filled in ") and "megapixels/s" in lines[2]
    assert captured.err.splitlines()[0].startswith("error: photos/deep/1.png is not an image")
    assert captured.err.splitlines()[1].startswith("error: photos/deep/2.png is 61x45 and masks/deep/2.png 9x9")
    assert captured.err.splitlines()[2].startswith("warning: photos/deep/3.png: there is no hole")


def test_one_mask_is_read_once(network, place, monkeypatch):
    """One mask for a folder is read once and serves all photographs."""
    for k in range(3):
        save(place / "photos" / f"{k}.jpg", content(seed=k))
    read, paths = photograph.read, []
    monkeypatch.setattr(photograph, "read", lambda path, limit: paths.append(path) or read(path, limit))
    assert not inpaint.fill_all(network, jobs.match("photos", "mask.png", "out", False), inpaint.Options("white_hole"))
    assert sorted(os.listdir("out")) == ["0.png", "1.png", "2.png"] and paths.count("mask.png") == 1


@pytest.mark.usefixtures("place")
def test_too_large_for_the_machine(network, monkeypatch):
    """If the memory does not suffice, the message names the flag that helps."""

    def fail(*_, **__):
        raise MemoryError("no more")

    monkeypatch.setattr(network, "fill", fail)
    with pytest.raises(ValueError, match=r"photo.png: is 61x45, too large for this machine: lower --tile \(no more\)"):
        fill(network, "photo.png", "mask.png", "out.png")


@pytest.mark.usefixtures("place")
def test_a_write_that_fails_leaves_nothing(network, monkeypatch):
    """If writing fails, e.g. because the disk is full, neither the result nor a part of it remains."""

    def fail(*_):
        raise OSError("No space left on device")

    before = tree(".")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        fill(network, "photo.png", "mask.png", "out.png")
    assert tree(".") == before


@pytest.mark.usefixtures("place")
def test_overwrite_and_best(run):
    """--checkpoint=best uses the best checkpoint, and --overwrite replaces an older result."""
    inpaint.main(parsed(run=run))
    first = pixels("out.png")
    pathlib.Path("out.png").write_bytes(b"old")
    inpaint.main(parsed(run=run, checkpoint="best", overwrite=True))
    np.testing.assert_array_equal(pixels("out.png"), first)


@pytest.mark.usefixtures("place")
def test_words_and_flags_name_the_same_files(run):
    """Photograph, mask and result are given by position, by flags or mixed; a file that is named twice is refused."""
    inpaint.main(parsed(run=run))
    expected = pixels("out.png")
    nothing = {"image": None, "mask": None, "out": None, "polarity": None, "run": run, "overwrite": True}
    for words, flags_of in (
        (("photo.png", "mask.png", "out.png"), {}),
        (("photo.png", "out.png"), {"mask": "mask.png"}),
        (("mask.png", "out.png"), {"image": "photo.png"}),
        (("photo.png",), {"mask": "mask.png", "out": "out.png"}),
    ):
        os.remove("out.png")
        inpaint.main(parsed(**{**nothing, **flags_of}), *words)
        np.testing.assert_array_equal(pixels("out.png"), expected)
    with pytest.raises(UserError, match=r"other.png is more than what the flags leave out"):
        inpaint.main(parsed(**{**nothing, "out": "out.png"}), "photo.png", "mask.png", "other.png")


def test_no_mask_means_transparency(run, place):
    """With two positional arguments, photograph and result, the transparent pixels are filled."""
    save(place / "cut.png", np.dstack([content(), np.where(hole(), 0, 255).astype(np.uint8)]))
    nothing = {"image": None, "mask": None, "out": None, "polarity": None}
    inpaint.main(parsed(**nothing, run=run), "cut.png", "filled.png")
    inpaint.main(parsed(run=run))
    np.testing.assert_array_equal(pixels("filled.png")[..., :3], pixels("out.png"))
    assert (pixels("filled.png")[..., 3] == 255).all()


@pytest.mark.usefixtures("place")
def test_weights_in_place_of_a_run(run, monkeypatch):
    """Exported weights fill as their run does, up to half precision. Without flags the package's weights are used."""
    inpaint.main(parsed(run=run))
    networks.export(run, "weights.safetensors")
    inpaint.main(parsed(weights="weights.safetensors", overwrite=True))
    filled = pixels("out.png")
    monkeypatch.setattr(weights_file, "PRETRAINED", "weights.safetensors")
    inpaint.main(parsed(out="default.png"))
    np.testing.assert_array_equal(pixels("default.png"), filled)


def test_the_command(run, place):
    """The command fills a photograph in a process of its own, and gives the same result again."""
    words = ["photo.png", "mask.png", "out.png", f"--run={run}"]

    def command():
        words_of_python = [sys.executable, "-m", "pconv_jax.inpaint", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(words_of_python, cwd=place, env=environment, capture_output=True, text=True, check=False)

    done = command()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out.png: 61x45, hole 8.74%\n1 of 1 filled in ") and not done.stderr
    np.testing.assert_array_equal(pixels("out.png")[~hole()], content()[~hole()])
    again = command()
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "error: out.png is already there: give --overwrite to replace, or another --out\n"
