"""Mask images of a folder are decoded once, in bounded memory, and the folder has a fingerprint."""

import concurrent.futures
import os

import cv2
import numpy as np
import pytest

from pconv_jax.data import mask_folder, masks


@pytest.fixture
def folder(tmp_path):
    """Writes six masks of odd sizes; returns the directory and the holes by path."""
    rng, holes = np.random.default_rng(0), {}
    for index in range(6):
        hole = rng.integers(0, 2, (30 + index, 45), np.uint8)
        path = str(tmp_path / f"{index}.png")
        cv2.imwrite(path, 255 * hole)
        holes[path] = hole
    return tmp_path, holes


@pytest.fixture
def decoded(monkeypatch):
    """Empties the cache and returns the list that collects the paths of decoded files."""
    paths, decode = [], mask_folder._decode
    monkeypatch.setattr(mask_folder, "_cache", mask_folder._Cache())
    monkeypatch.setattr(mask_folder, "_decode", lambda path, *rest: paths.append(path) or decode(path, *rest))
    return paths


def test_a_mask_is_decoded_once(folder, decoded):
    """Later reads give the same bits for either polarity, and changing a result does not change the next one."""
    for _ in range(3):
        for path, hole in folder[1].items():
            for polarity, wanted in (("white_hole", hole), ("black_hole", 1 - hole)):
                read = mask_folder.read_hole(path, polarity)
                assert read.dtype == np.uint8 and read.flags.writeable
                np.testing.assert_array_equal(read, wanted)
                read[:] = 7
    assert sorted(decoded) == sorted([*folder[1]] * 2)


def test_memory_is_bounded(folder, decoded, monkeypatch):
    """Masks that do not fit into the cache are decoded each time, with the same result."""
    first, *others = folder[1]
    monkeypatch.setattr(mask_folder, "MAX_CACHED", 2 * -(-31 * 45 // 8))  # room for the first, and another or none
    for _ in range(3):
        for path, hole in folder[1].items():
            np.testing.assert_array_equal(mask_folder.read_hole(path, "white_hole"), hole)
    assert decoded.count(first) == 1
    assert sum(decoded.count(path) == 3 for path in others) == 4
    assert mask_folder._cache._bytes <= mask_folder.MAX_CACHED


def test_a_changed_file_is_read_again(folder, decoded):
    path, hole = next(iter(folder[1].items()))
    assert mask_folder.read_hole(path, "white_hole").sum() == hole.sum()
    cv2.imwrite(path, np.zeros((9, 9), np.uint8))
    os.utime(path, ns=(1, 1))
    assert mask_folder.read_hole(path, "white_hole").shape == (9, 9)
    os.remove(path)
    with pytest.raises(FileNotFoundError):
        mask_folder.read_hole(path, "white_hole")


def test_threads_share_it(folder, decoded):
    """Reading from many threads gives the same bits, and the cache's byte count stays right."""
    paths = [*folder[1]] * 50
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for path, hole in zip(paths, pool.map(lambda p: mask_folder.read_hole(p, "white_hole"), paths), strict=True):
            np.testing.assert_array_equal(hole, folder[1][path])
    assert mask_folder._cache._bytes == sum(-(-hole.size // 8) for hole in folder[1].values())


def test_draws_are_the_same_with_and_without(folder, decoded, monkeypatch):
    """Augmented masks, made from one mask image many times, are the same with and without the cache."""
    family = masks.Family("folder", (0.1, 0.95), path=str(folder[0]))
    cached = [masks.draw(family, 0, 0, index, (32, 32)) for index in range(20)]
    assert len(decoded) <= 6
    monkeypatch.setattr(mask_folder, "MAX_CACHED", 0)
    monkeypatch.setattr(mask_folder, "_cache", mask_folder._Cache())
    for index, mask in enumerate(cached):
        np.testing.assert_array_equal(masks.draw(family, 0, 0, index, (32, 32)), mask)
    assert len(decoded) > 20


def test_fingerprint(tmp_path):
    """The fingerprint depends on names and sizes at any depth and not on other files.

    Each folder is listed once in a process, so every case has its own folder.
    """

    def make(name, **contents):
        for file, content in contents.items():
            path = tmp_path / name / file.replace("_", "/", 1).replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return mask_folder.fingerprint(str(tmp_path / name))

    one = make("a", x_1_png=b"12", y_2_png=b"3")
    assert one.startswith("2 files, sha256 ") and one == mask_folder.fingerprint(str(tmp_path / "a"))
    assert one == make("same", x_1_png=b"45", y_2_png=b"6", z_notes_txt=b"mine")
    others = [
        make("more", x_1_png=b"12", y_2_png=b"3", y_3_png=b"4"),
        make("fewer", x_1_png=b"12"),
        make("renamed", x_1_png=b"12", y_3_png=b"3"),
        make("moved", y_1_png=b"12", y_2_png=b"3"),
        make("longer", x_1_png=b"12", y_2_png=b"34"),
    ]
    assert len({one, *others}) == 6
