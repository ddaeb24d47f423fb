"""Tests of jobs: files are matched by name before anything is read, and no file is replaced without --overwrite."""

import os
import unicodedata

import pytest

from pconv_jax import errors
from pconv_jax.inpainting import jobs
from pconv_jax.training import rundir


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Makes and enters a directory with photographs and masks by name; the files are empty, as none is read."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.jpg", "photos/deep/a.PNG", "photos/.hidden.png", "photos/.trash/c.png", "photos/note.txt"):
        touch(tmp_path / name)
    for name in ("masks/b.png", "masks/deep/a.png", "one.png", "photo.jpg"):
        touch(tmp_path / name)
    return tmp_path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_one_photograph(place):
    assert jobs.match("photo.jpg", "one.png", "new/x.webp", False) == [jobs.Job("photo.jpg", "one.png", "new/x.webp")]
    assert jobs.match("photo.jpg", None, "x.png", False) == [jobs.Job("photo.jpg", None, "x.png")]
    assert not (place / "new").exists()


@pytest.mark.usefixtures("place")
def test_folders_match_by_name():
    """Photographs and masks match at any depth, whatever the extension; hidden files are left out; results are PNG."""
    assert jobs.match("photos", "masks", "out", False) == [
        jobs.Job("photos/b.jpg", "masks/b.png", "out/b.png"),
        jobs.Job("photos/deep/a.PNG", "masks/deep/a.png", "out/deep/a.png"),
    ]


@pytest.mark.usefixtures("place")
def test_one_mask_for_all_and_alpha():
    assert [job.mask for job in jobs.match("photos", "one.png", "out", False)] == ["one.png"] * 2
    assert [job.mask for job in jobs.match("photos", None, "out", False)] == [None] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.jpg", "one.png", "x.png"), "none.jpg does not exist: give --image"),
        (("photo.jpg", "none.png", "x.png"), "none.png does not exist: give --mask"),
        (("photo.jpg", "masks", "x.png"), "masks is a folder and photo.jpg a file"),
        (("photo.jpg", "one.png", "x"), "x is not a file to write"),
        (("photo.jpg", "one.png", "x.gif"), "x.gif is not a file to write: give --out a name in .png"),
        (("photo.jpg", "one.png", "masks"), "masks is not a file to write"),
        (("photo.jpg", "one.png", "one.png"), "one.png is an input, which is never replaced"),
        (("photos", "masks", "one.png"), "one.png is a file and photos a folder"),
        (("photos", "masks", "masks"), "masks/b.png is an input, which is never replaced"),
        (("empty", "masks", "out"), r"no images \(.jpg, .*\) under empty"),
        (("photos", "empty", "out"), "no images .* under empty"),
        (("twice", "masks", "out"), "twice/a.jpg and twice/a.png have one name"),
        (
            ("others", "apart", "out"),
            "no match for others/b.png, others/c.png, apart/x.png: photographs and masks need",
        ),
        (("photos", "masks", "photos"), "photos is the folder of the photographs: give --out another folder"),
    ],
)
def test_what_does_not_match(place, arguments, message):
    """Each error names the file, and --overwrite does not help."""
    (place / "empty").mkdir()
    for name in ("twice/a.jpg", "twice/a.png", "others/b.png", "others/c.png", "apart/x.png"):
        touch(place / name)
    before = sorted(os.walk("."))
    with pytest.raises(ValueError, match=message):
        jobs.match(*arguments, True)
    assert sorted(os.walk(".")) == before


def test_results_that_are_there(place):
    """Results that exist are counted and refused without --overwrite; a link to an input is the input."""
    touch(place / "out" / "b.png")
    touch(place / "out" / "deep" / "a.png")
    with pytest.raises(ValueError, match=r"out/b.png and 1 more are already there: give --overwrite"):
        jobs.match("photos", "masks", "out", False)
    assert len(jobs.match("photos", "masks", "out", True)) == 2
    touch(place / "x.png")
    with pytest.raises(ValueError, match=r"x.png is already there"):
        jobs.match("photo.jpg", "one.png", "x.png", False)
    (place / "link.png").symlink_to("one.png")
    with pytest.raises(ValueError, match=r"link.png is an input"):
        jobs.match("photo.jpg", "one.png", "link.png", True)


def test_many_lonely_files_are_counted(place):
    """The error has the first five files without a match and the number of the others."""
    touch(place / "apart" / "x.png")
    for k in range(7):
        touch(place / "photos" / f"more{k}.png")
    with pytest.raises(ValueError, match=r"photos/b.jpg, .*photos/more2.png and 5 more: photographs"):
        jobs.match("photos", "apart", "out", False)


@pytest.mark.usefixtures("place")
def test_home_is_expanded(tmp_path, monkeypatch):
    """`~` is the home directory in every path, and no folder of that name is made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (job,) = jobs.match("~/photo.jpg", "~/one.png", "~/x.png", False)
    assert job == jobs.Job(*(str(tmp_path / name) for name in ("photo.jpg", "one.png", "x.png")))
    assert {job.out for job in jobs.match("~/photos", "~/masks", "~/out", False)} == {
        str(tmp_path / "out" / name) for name in ("b.png", "deep/a.png")
    }


@pytest.mark.parametrize("mask", ["photos/masks", "photos/one.png"])
def test_a_command_can_be_repeated(place, mask):
    """Results and masks inside the photographs' folder are no photographs, the second time as well."""
    names = {"photos/masks": ("photos/masks/b.png", "photos/masks/deep/a.png")}.get(mask, (mask,))
    for name in names:
        touch(place / name)
    first = jobs.match("photos", mask, "photos/filled", False)
    assert [job.image for job in first] == ["photos/b.jpg", "photos/deep/a.PNG"]
    for job in first:
        touch(place / job.out)
    assert jobs.match("photos", mask, "photos/filled", True) == first


def test_an_interrupted_batch_goes_on(place, caplog):
    """With `resume`, photographs whose result exists are left out, and results are not replaced."""
    caplog.set_level("INFO", logger="absl")
    touch(place / "out" / "b.png")
    (job,) = jobs.match("photos", "masks", "out", False, resume=True)
    assert job.image == "photos/deep/a.PNG"
    touch(place / job.out)
    assert jobs.match("photos", "masks", "out", False, resume=True) == []
    assert "2 of 2 results are there and are kept" in caplog.text
    with pytest.raises(errors.UserError, match="give --overwrite to replace, --resume to keep them and do the rest"):
        jobs.match("photos", "masks", "out", False)


def test_a_photograph_without_a_mask_does_not_stop_the_others(place, caplog):
    """Its job has the problem; a mask without a photograph is named in the log."""
    touch(place / "photos" / "c.png")
    touch(place / "masks" / "x.png")
    problems = [job.problem for job in jobs.match("photos", "masks", "out", False)]
    assert problems == ["", "photos/c.png has no mask under masks: draw one by the same name", ""]
    assert "1 masks have no photograph, e.g. masks/x.png" in caplog.text


def test_names_of_masks(place):
    """Letter case and endings such as _mask and _mask001 do not matter; a name that is equal goes first."""
    for name in ("p/One.JPG", "p/two.png", "p/three_mask.png", "p/four.png", "p/five.png"):
        touch(place / name)
    masks = ("ONE.png", "two_mask001.png", "three_mask.png", "four-mask.png", "Five_Mask.PNG")
    for name in masks:
        touch(place / "m" / name)
    pairs = {job.image.removeprefix("p/"): job.mask for job in jobs.match("p", "m", "out", False)}
    wanted = dict(zip(("One.JPG", "two.png", "three_mask.png", "four.png", "five.png"), masks, strict=True))
    assert pairs == {image: f"m/{mask}" for image, mask in wanted.items()}


def test_photographs_and_masks_in_one_folder(place):
    """Files whose name ends in _mask are the masks of the others."""
    for name in ("p/a.jpg", "p/a_mask.png", "p/b.png", "p/b_mask000.png"):
        touch(place / name)
    matched = jobs.match("p", "p", "out", False)
    assert [(job.image, job.mask) for job in matched] == [("p/a.jpg", "p/a_mask.png"), ("p/b.png", "p/b_mask000.png")]


def test_composed_and_decomposed_names_match(place):
    """The names of macOS (decomposed) and of others (composed) are the same name."""
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert one != other
    touch(place / "p" / f"{one}.jpg")
    touch(place / "m" / f"{other}.png")
    (job,) = jobs.match("p", "m", "out", False)
    assert (job.image, job.mask) == (f"p/{one}.jpg", f"m/{other}.png") and not job.problem


@pytest.mark.parametrize("length", [200, 246, 251])
def test_long_names_are_written(place, length):
    """A name of up to 255 bytes, the most that file systems allow, is written: the temporary name is not longer."""
    touch(place / "p" / f"{'n' * length}.png")
    (job,) = jobs.match("p", None, "out", False)
    os.makedirs("out")
    rundir.write_atomically(job.out, b"content")
    assert os.listdir("out") == [f"{'n' * length}.png"]


def test_names_that_are_not_text(place):
    """A name with bytes that are not text is listed, matched, and printed in escaped form."""
    name = os.fsdecode(b"a\xff.png")
    touch(place / "p" / name)
    touch(place / "m" / name)
    (job,) = jobs.match("p", "m", "out", False)
    assert job.mask == f"m/{name}"
    with pytest.raises(errors.UserError) as raised:
        jobs.match("p", "m", "p/../m", False)
    str(raised.value).encode("ascii")
