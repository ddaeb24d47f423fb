"""Tests of inpainting odd files: problems are reported, other files are filled, and hidden colours never appear."""

import os

import numpy as np
import PIL.Image
import pytest

import bad_files
import networks
import pictures
from pconv_jax import inpaint
from pconv_jax.errors import UserError
from pconv_jax.inpainting import inpainter, jobs
from pconv_jax.reading import images

OPTIONS = inpaint.Options("white_hole")
PHOTO, MASK = "f08_hidden_colour.png", "mask.png"


@pytest.fixture(scope="module")
def network():
    """Returns a filler with random parameters."""
    return inpainter.Inpainter(*networks.random())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Enters an empty directory with a copy of the small files."""
    monkeypatch.chdir(tmp_path)
    for path in bad_files.DIRECTORY.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def decoded(path):
    """Returns the image in a file."""
    return images.decode(path.read_bytes())


def test_hidden_colours_do_not_bleed_into_the_filling(network, place):
    """Colours under an alpha of 0 are no context: others in their place change nothing, and they stay in the file."""
    first = decoded(place / PHOTO)
    hidden = first.alpha[..., 0] == 0
    assert 0 < hidden.sum() < hidden.size
    other = np.concatenate([np.where(hidden[..., None], 255 - first.pixels, first.pixels), first.alpha], axis=-1)
    PIL.Image.fromarray(other).save("other.png")
    results = []
    for name in (PHOTO, "other.png"):
        inpaint.fill_file(network, jobs.Job(name, MASK, f"filled_{name}"), OPTIONS)
        results.append(decoded(place / f"filled_{name}"))
    hole = decoded(place / MASK).pixels[..., 0] > 0
    np.testing.assert_array_equal(results[0].pixels[hole], results[1].pixels[hole])
    np.testing.assert_array_equal(results[0].pixels[~hole], first.pixels[~hole])
    assert (results[0].pixels[hole] != first.pixels[hole]).any()


def test_nothing_but_hidden_colours(network, place):
    """A photograph that is hole or wholly transparent everywhere has nothing to be filled from."""
    pixels = np.concatenate([bad_files.pixels("upright.png"), np.zeros((32, 48, 1), np.uint8)], axis=-1)
    PIL.Image.fromarray(pixels).save("clear.png")
    with pytest.raises(UserError, match="is hole or wholly transparent: nothing is left to fill it from"):
        inpaint.fill_file(network, jobs.Job("clear.png", MASK, "out.png"), OPTIONS)
    assert not (place / "out.png").exists()


@pytest.mark.usefixtures("place")
def test_lost_data_is_a_warning(network):
    """A JPEG that lost bytes inside is filled, with a warning that says how much has no data."""
    array = pictures.noise(0, 320, 240)
    PIL.Image.fromarray(array).save("photo.jpg", quality=90)
    PIL.Image.fromarray(np.eye(320, 240, dtype=bool)).save("eye.png")
    with open("photo.jpg", "rb") as file:
        encoded = file.read()
    with open("photo.jpg", "wb") as file:
        file.write(encoded[: len(encoded) // 2] + encoded[-100:])
    _, warnings, _ = inpaint.fill_file(network, jobs.Job("photo.jpg", "eye.png", "out.png"), OPTIONS)
    assert warnings[0].startswith("is a damaged JPEG: the last ") and "% of the rows have no data" in warnings[0]


@pytest.mark.usefixtures("place")
def test_a_turned_photograph_is_reported(network):
    """The line about a photograph that EXIF's orientation turned says so."""
    about, _, _ = inpaint.fill_file(network, jobs.Job("f01_orientation3.tif", MASK, "out.png"), OPTIONS)
    assert about.endswith(", turned as its EXIF says")


def test_the_rest_of_a_folder_is_done(network, place, capsys):
    """A pipe, a photograph without a mask and a name that is not text do not stop the others."""
    names = ["a.png", "b.png", os.fsdecode(b"c\xff.png")]
    for name in names:
        for folder in ("photos", "masks"):
            (place / folder).mkdir(exist_ok=True)
            source = "upright.png" if folder == "photos" else MASK
            (place / folder / name).write_bytes((place / source).read_bytes())
    (place / "masks" / "b.png").unlink()
    os.mkfifo(place / "photos" / "pipe.png")
    (place / "masks" / "pipe.png").write_bytes((place / MASK).read_bytes())
    matched = jobs.match("photos", "masks", "out", False)
    failed = inpaint.fill_all(network, matched, OPTIONS)
    assert sorted(failed) == ["photos/b.png", "photos/pipe.png"]
    assert sorted(os.listdir("out")) == ["a.png", os.fsdecode(b"c\xff.png")]
    printed = capsys.readouterr()
    assert "error: photos/pipe.png is a pipe or a device; needs a file" in printed.err
    assert "error: photos/b.png has no mask under masks" in printed.err
    assert r"'out/c\udcff.png': 48x32" in printed.out


@pytest.mark.parametrize("mask", ["f09_mask_0_1.png", "f02_mask_white_is_zero16.tif"])
def test_masks_of_other_programs(network, place, mask):
    """Masks of 0 and 1, and of 16 bits with white as zero, fill the hole that the usual mask fills."""
    for name in (MASK, mask):
        inpaint.fill_file(network, jobs.Job("upright.png", name, f"{name}.out.png"), OPTIONS)
    np.testing.assert_array_equal(decoded(place / f"{MASK}.out.png").pixels, decoded(place / f"{mask}.out.png").pixels)
