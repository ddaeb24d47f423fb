"""Files are matched by name before anything is read, and nothing is replaced unasked."""

import os

import pytest

from pconv_jax.inpainting import jobs


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with photographs and masks by name; empty files, since nobody reads them."""
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
    """Whatever the extension, at any depth, without hidden files; results are PNG."""
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
    """Refused unless told, with how many; a link to an input is the input."""
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
