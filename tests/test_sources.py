"""Tests of sources: each image is listed once, and decoding gives the pixels that viewers show."""

import hashlib
import io
import logging
import os
import pickle
import random

import numpy as np
import PIL.Image
import pytest

import pictures
from pconv_jax import errors
from pconv_jax.data import sources
from pconv_jax.reading import png


def fill(root, *names):
    """Writes a different image under each name."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures.encode(pictures.noise(i, 8, 8), path.suffix.lower()))


def pillow(image, kind="PNG", **options):
    """Returns the bytes of an image that Pillow encoded, so that encoder and decoder differ."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_photos_exist_and_decode(channels):
    """Every listed photograph is in scikit-image's wheel and decodes."""
    for source in sources.photos():
        for index in range(len(source)):
            image = sources.decode(source[index], channels)
            assert image is not None and image.dtype == np.uint8, source.names[index]
            assert image.ndim == 3 and image.shape[-1] == channels and min(image.shape[:2]) >= 256, source.names[index]


def test_photos_are_apart():
    """Training and evaluation share no photograph, and the two views of one scene are on one side."""
    train, evaluation = sources.photos()
    digests = [{hashlib.sha256(s[i]).digest() for i in range(len(s))} for s in (train, evaluation)]
    assert len(digests[0]) == len(train) and len(digests[1]) == len(evaluation)
    assert not digests[0] & digests[1]
    scenes = [
        {name.split(".")[0].removesuffix("_left").removesuffix("_right") for name in s.names}
        for s in (train, evaluation)
    ]
    assert not scenes[0] & scenes[1] and "motorcycle" in scenes[0] | scenes[1]
    assert sum(name.startswith("motorcycle") for name in train.names + evaluation.names) == 2


def test_folder_lists_images_at_any_depth(tmp_path):
    """Files of all formats are listed, sorted, with odd names; other and hidden files are left out."""
    names = ["b.jpg", "a/deep/er.png", "a/c.JPEG", "ä ö/猫 (1).webp", "z.bmp", "a b.PNG"]
    fill(tmp_path, *names)
    fill(tmp_path, ".hidden.png", "._b.jpg", ".thumbnails/b.jpg", "a/.cache/c.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "png").write_text("no image")
    (tmp_path / "empty").mkdir()
    source = sources.folder(str(tmp_path))
    assert source.names == tuple(sorted(names)) and len(source) == 6
    for index, name in enumerate(source.names):
        assert source[index] == (tmp_path / name).read_bytes()
        assert sources.decode(source[index]).shape == (8, 8, 3)


def test_folder_is_found_from_home(tmp_path, monkeypatch):
    """`~` is the home directory, and the root is kept absolute."""
    fill(tmp_path, "pictures/a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources.folder("~/pictures").root == str(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    assert sources.folder("pictures").root == str(tmp_path / "pictures")


def test_folder_ends_on_loops_of_links(tmp_path):
    """A link back to the root or to a parent ends the walk, and no image is listed twice."""
    fill(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "sub" / "up").symlink_to(tmp_path / "sub")
    assert sources.folder(str(tmp_path)).names == ("a.png", "sub/b.png")


def test_folder_follows_links(tmp_path):
    """Linked directories are searched; of several links to one directory the first by name counts."""
    fill(tmp_path, "elsewhere/a.png")
    (tmp_path / "root").mkdir()
    for name in ("two", "one", "three"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    assert sources.folder(str(tmp_path / "root")).names == ("one/a.png",)


def test_folder_errors(tmp_path):
    """A missing directory, a file in its place and a directory without images are errors that say what to set."""
    with pytest.raises(ValueError, match=r"missing is not a directory: set data.path to a folder of images"):
        sources.folder(str(tmp_path / "missing"))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png is not a directory"):
        sources.folder(str(tmp_path / "a.png"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"no images \(\.jpg, .*\.bmp\) under .*empty: set data.path"):
        sources.folder(str(tmp_path / "empty"))


@pytest.mark.parametrize("count", [2, 3, 10, 57])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_split_is_complete_and_disjoint(count, fraction):
    """Every file is on exactly one side, each side has at least one, and as many are held out as asked for."""
    names = tuple(f"image{i}.png" for i in range(count))
    train, evaluation = sources.split(sources.FileSource("root", names), fraction)
    assert sorted(train.names + evaluation.names) == sorted(names)
    assert len(evaluation) == min(max(1, round(fraction * count)), count - 1) and len(train) >= 1
    assert train.root == evaluation.root == "root"
    assert list(train.names) == sorted(train.names) and list(evaluation.names) == sorted(evaluation.names)


def test_split_depends_on_names_alone():
    """Neither the order of the files nor Python's hash seed matter; one more file moves at most one other."""
    names = [f"dir/画像 {i}.png" for i in range(40)] + [os.fsdecode(b"not-unicode-\xff.png")]
    train, evaluation = sources.split(sources.FileSource("root", tuple(sorted(names))), 0.25)
    random.Random(0).shuffle(names)
    assert sources.split(sources.FileSource("root", tuple(names)), 0.25) == (train, evaluation)
    more = tuple(sorted([*names, "new.png"]))
    assert len(set(sources.split(sources.FileSource("root", more), 0.25)[1].names) ^ set(evaluation.names)) <= 2
    known = sources.FileSource("root", tuple(f"image{i}.png" for i in range(10)))
    assert sources.split(known, 0.2)[1].names == ("image4.png", "image5.png")  # stays so


def test_split_of_one_file_is_an_error():
    """A single image is an error, because it cannot be on both sides."""
    with pytest.raises(ValueError, match=r"root has 1 image; needs at least 2, .*add images, or set data.eval_path"):
        sources.split(sources.FileSource("root", ("a.png",)), 0.1)


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_decode_keeps_pixels_and_channel_order(extension):
    """Lossless files come back exactly, in the order RGB: a red image is red."""
    image = pictures.noise(0)
    np.testing.assert_array_equal(sources.decode(pictures.encode(image, extension)), image)
    red = pillow(PIL.Image.new("RGB", (5, 4), (255, 0, 0)), "BMP" if extension == ".bmp" else "PNG")
    assert (sources.decode(red) == (255, 0, 0)).all()


@pytest.mark.parametrize(("extension", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_decode_lossy_formats(extension, options):
    """JPEG and WebP are decoded as RGB, too."""
    red = sources.decode(pillow(PIL.Image.new("RGB", (16, 16), (250, 20, 10)), extension, **options))
    assert red.shape == (16, 16, 3) and np.abs(red.astype(int) - (250, 20, 10)).max() <= 4


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_applies_exif_orientation(orientation, channels):
    """A photograph taken with the camera turned comes back upright."""
    image = np.zeros((16, 32, 3), np.uint8)
    image[:8, :8] = 255  # a white block in the stored image's upper left corner
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    decoded = sources.decode(pillow(PIL.Image.fromarray(image), "JPEG", exif=exif, quality=95), channels)
    turned = {3: np.rot90(image, 2), 6: np.rot90(image, -1), 8: np.rot90(image)}[orientation][..., :channels]
    assert decoded.shape == turned.shape
    assert np.abs(decoded.astype(int) - turned).max() < 40


def test_decode_grey_alpha_palette_and_16_bit():
    """Grey becomes RGB, alpha is dropped, a palette is resolved, 16 bits become 8."""
    image = pictures.noise(0)
    grey = image[..., :1]
    encoded_grey = pillow(PIL.Image.fromarray(grey[..., 0]))
    np.testing.assert_array_equal(sources.decode(encoded_grey), grey.repeat(3, axis=-1))
    np.testing.assert_array_equal(sources.decode(encoded_grey, 1), grey)
    with_alpha = np.concatenate([image, pictures.noise(1, channels=1)], axis=-1)
    np.testing.assert_array_equal(sources.decode(pillow(PIL.Image.fromarray(with_alpha))), image)
    grey_alpha = PIL.Image.fromarray(np.concatenate([grey, pictures.noise(1, channels=1)], axis=-1))
    np.testing.assert_array_equal(sources.decode(pillow(grey_alpha), 1), grey)
    palette = PIL.Image.fromarray(image // 64 * 64).quantize(64)
    np.testing.assert_array_equal(sources.decode(pillow(palette)), np.asarray(palette.convert("RGB")))
    wide = np.arange(256, dtype=np.uint16).reshape(16, 16, 1) * 257
    np.testing.assert_array_equal(sources.decode(pictures.encode(wide), 1), wide // 257)
    np.testing.assert_array_equal(sources.decode(pictures.encode(wide)), (wide // 257).repeat(3, axis=-1))


def test_decode_to_one_channel():
    """Colour becomes `[H, W, 1]` with the usual luminance, green heavier than blue."""
    colours = {(255, 0, 0): 76, (0, 255, 0): 150, (0, 0, 255): 29}
    for colour, luminance in colours.items():
        decoded = sources.decode(pillow(PIL.Image.new("RGB", (6, 4), colour)), 1)
        assert decoded.shape == (4, 6, 1) and np.abs(decoded.astype(int) - luminance).max() <= 1


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_decode_truncated(extension, part):
    """Truncated files and files that are no image are errors, and never a picture that is half grey."""
    encoded = pictures.encode(pictures.noise(0, 64, 64), extension)
    assert sources.decode(encoded).shape == (64, 64, 3)
    for wrong in (encoded[: int(part * len(encoded))], b"no image" * 20):
        with pytest.raises(errors.UserError):
            sources.decode(wrong)


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_images_are_skipped_counted_and_named(caplog, cache):
    """The next readable image is used, the item has the number of skipped ones, and the log names each once."""
    good = [pictures.noise(i, 8, 8) for i in range(2)]
    source = pictures.MemorySource((pictures.encode(good[0]), b"broken", b"", pictures.encode(good[1]), b"broken"))
    decoded = sources.DecodedSource(source, cache=cache)
    with caplog.at_level(logging.WARNING, logger="absl"):
        for _ in range(2):
            for index, (wanted, passed) in enumerate([(0, 0), (1, 2), (1, 1), (1, 0), (0, 1)]):
                image, skipped = decoded[index]
                np.testing.assert_array_equal(image, good[wanted])
                assert skipped == passed
    assert len(decoded) == 5
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "skipped image1.png: is not an image of a known format; needs JPEG, PNG, WebP, TIFF or BMP (1 skipped so far)",
        "skipped image2.png: is empty (2 skipped so far)",
        "skipped image4.png: is not an image of a known format; needs JPEG, PNG, WebP, TIFF or BMP (3 skipped so far)",
    ]


def test_missing_files_are_skipped(tmp_path, caplog):
    """A file that was removed, or a dead link, does not end the training."""
    fill(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    decoded = sources.DecodedSource(sources.folder(str(tmp_path)))
    with caplog.at_level(logging.WARNING, logger="absl"):
        image, skipped = decoded[1]
    assert skipped == 1
    np.testing.assert_array_equal(image, decoded[2][0])
    assert "skipped b.png: [Errno 2] No such file" in caplog.text


@pytest.mark.parametrize(("count", "tried"), [(3, 3), (40, 16)])
def test_nothing_readable_is_an_error(count, tried):
    """A folder of broken files is an error; the search for a readable one ends."""
    decoded = sources.DecodedSource(pictures.MemorySource((b"broken",) * count))
    with pytest.raises(
        ValueError, match=rf"{tried} images in a row cannot be decoded, from image1.png: check the files"
    ):
        decoded[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_cache_changes_nothing_but_time(channels):
    """The images are the same with the cache, and each file is read once."""

    class Counted(pictures.MemorySource):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    reads = []
    source = Counted(tuple(pictures.encode(pictures.noise(i, 8, 8)) for i in range(3)))
    cached, plain = sources.DecodedSource(source, channels, cache=True), sources.DecodedSource(source, channels)
    for index in (0, 1, 2, 0, 1, 2):
        np.testing.assert_array_equal(cached[index][0], plain[index][0])
        assert cached[index][0].shape == (8, 8, channels)
    assert sorted(reads) == sorted([0, 1, 2] * 2 + [0, 1, 2])


def test_sources_can_be_sent_to_workers(tmp_path):
    """Pickling keeps paths and not bytes, and the copy reads the same."""
    fill(tmp_path, *(f"{i}.png" for i in range(5)))
    decoded = sources.DecodedSource(sources.folder(str(tmp_path)))
    sent = pickle.dumps(decoded)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent)[3][0], decoded[3][0])


def test_evaluation_images_are_left_out_of_training(tmp_path):
    """Evaluation images inside the training folder, also by a link, are left out; if all are, it is an error."""
    for name in ("a.png", "b.png", "eval/c.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    (tmp_path / "link").symlink_to(tmp_path / "photos" / "eval")
    train = sources.folder(str(tmp_path / "photos"))
    for path in ("photos/eval", "link"):
        left = sources.without(train, sources.folder(str(tmp_path / path)))
        assert left.names == ("a.png", "b.png"), path
    with pytest.raises(ValueError, match=r"all images of .* are evaluation images"):
        sources.without(train, train)


def test_fingerprint_follows_names_and_sizes(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"1234")
    prints = [sources.folder(str(tmp_path)).fingerprint() for _ in range(2)]
    (tmp_path / "b.png").write_bytes(b"12345")
    prints.append(sources.folder(str(tmp_path)).fingerprint())
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    prints.append(sources.folder(str(tmp_path)).fingerprint())
    assert prints[0] == prints[1] and len(set(prints)) == 3 and prints[0].startswith("2 files, sha256 ")


def test_lack_of_memory_is_no_damage(monkeypatch):
    """If memory is short the run stops, and no other image replaces a good one."""

    def decode(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(png, "decode", decode)
    source = pictures.MemorySource((pictures.encode(pictures.noise(0)),) * 2)
    with pytest.raises(MemoryError, match="no more"):
        sources.DecodedSource(source)[0]
