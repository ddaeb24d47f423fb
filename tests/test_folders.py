"""Tests of listing folders: one rule for training, masks and filling, and every file left out is reported."""

import os
import pathlib

import pytest

import pictures
from pconv_jax import errors
from pconv_jax.data import mask_folder, sources
from pconv_jax.inpainting import jobs
from pconv_jax.reading import folders

CONTENT = pictures.encode(pictures.noise(0, 8, 8))


@pytest.fixture
def folder(tmp_path):
    """Returns a function that writes an image under each name, and the folder's path."""

    def fill(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT)
        return tmp_path

    return fill


def listings(path):
    """Returns the names that training, mask folders and filling list under a directory."""
    mask_folder.files.cache_clear()
    filling = [os.path.relpath(file, path) for file in jobs.listing(str(path)).values()]
    masks = [mask_folder.relative(file, str(path)) for file in mask_folder.files(str(path))]
    return [*sources.folder(str(path)).names], masks, filling


def test_all_readers_list_the_same(folder, tmp_path):
    """Every extension of the five formats is listed, in any case, through links, without hidden files."""
    names = ["a.JPG", "b.jfif", "c.jpe", "d.TIF", "e.tiff", "sub/f.webp", "sub/deep/g.bmp", "h.jpeg", "i.png"]
    root = folder(*(f"root/{name}" for name in (*names, ".hidden.png", ".cache/x.png"))) / "root"
    folder("elsewhere/linked.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    for listing in listings(root):
        assert sorted(listing) == sorted([*names, "link/linked.png"])


def test_other_kinds_are_counted_in_one_line(folder, caplog):
    """Two of 18 files are read, and one line says how many of which kinds are not."""
    root = folder(
        "a.png", "b.jpg", *(f"{k}.heic" for k in range(9)), *(f"{k}.AVIF" for k in range(5)), "x.gif", "notes"
    )
    assert len(sources.folder(str(root))) == 2
    (record,) = caplog.records
    assert (
        "16 files are left out, as their kind is not read: 9 .heic, 5 .avif, 1 .gif, 1 no extension"
        in record.getMessage()
    )
    caplog.clear()
    assert len(jobs.match(str(root), None, str(root / "out"), False)) == 2
    assert "16 files are left out" in caplog.text


def test_nothing_but_other_kinds(folder):
    """The error of a folder without an image to read names the kinds that are read."""
    root = folder("a.heic")
    with pytest.raises(errors.UserError, match=r"no images \(\.jpg, .*\) under .*: set data.path to a folder"):
        sources.folder(str(root))


def test_unreadable_folders_are_reported(folder, caplog, monkeypatch):
    """A folder that may not be read is named in the log; the others are listed."""
    root = folder("a.png", "private/b.png")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert folders.images_below(str(root)) == ["a.png"]
    assert "private: Permission denied: its images are left out" in caplog.text


def test_a_relative_path_says_where_it_was_looked_for(tmp_path, monkeypatch):
    """The error of a relative path that does not exist names the working directory; `~` is the home directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pathlib.Path("home/photos").mkdir(parents=True)
    pathlib.Path("home/photos/a.png").write_bytes(CONTENT)
    assert folders.images_below("~/photos") == ["a.png"]
    with pytest.raises(errors.UserError, match=rf"none is not a directory: .*\(it was looked for in {tmp_path}\)"):
        folders.images_below("none")
