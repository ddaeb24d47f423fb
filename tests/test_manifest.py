"""Tests of manifests: inputs are read back unchanged, or an error names those that are not."""

import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest

import scoring
from pconv_jax.evaluation import inputs, manifest, predictions, scores


def written(directory, count=5, channels=3):
    """Returns a manifest of noise and its examples."""
    manifest.write(str(directory), scoring.batches(count, 2, channels), {"about": "noise"})
    return [scoring.example(index, channels) for index in range(count)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("manifest") / "inputs"
    return directory, written(directory)


@pytest.fixture
def copy(original, tmp_path):
    """Returns a copy of the manifest that a test may damage."""
    shutil.copytree(original[0], tmp_path / "inputs")
    return tmp_path / "inputs"


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read(tmp_path, channels):
    """Pixels, names, origins and hashes are read back in order."""
    expected = written(tmp_path / "inputs", 5, channels)
    result = manifest.Manifest(str(tmp_path / "inputs"))
    assert (len(result), result.size, result.channels) == (5, (20, 24), channels)
    assert result.names == tuple(example.name for example in expected)
    for index, example in enumerate(expected):
        np.testing.assert_array_equal(result[index].image, example.image)
        np.testing.assert_array_equal(result[index].mask, example.mask)
        assert result[index].about == example.about
    assert [len(batch) for batch in inputs.batches(result, 3)] == [3, 2]


def test_another_program_reads_it_by_its_own_means(original):
    """Files are plain PNGs: hashes are of the decoded pixels, and masks are white in the hole."""
    directory, expected = original
    content = json.loads((directory / "manifest.json").read_text())
    assert (content["about"], content["size"], content["channels"], content["hole"]) == ("noise", [20, 24], 3, 255)
    assert len(list(directory.rglob("*"))) == 3 + 2 * 5
    for entry, example in zip(content["examples"], expected, strict=True):
        image = cv2.imread(str(directory / "images" / f"{entry['name']}.png"))[..., ::-1]
        hole = cv2.imread(str(directory / "masks" / f"{entry['name']}.png"), cv2.IMREAD_UNCHANGED)
        assert hashlib.sha256(image.tobytes()).hexdigest() == entry["image_sha256"]
        assert hashlib.sha256((hole == 0).astype(np.uint8).tobytes()).hexdigest() == entry["mask_sha256"]
        assert hole.shape == (20, 24) and np.mean(hole == 255) == entry["hole_area"] == example.about["hole_area"]
        assert (entry["bucket"], entry["touches_border"]) == (1, True)


def test_names_may_be_anything_plain(copy):
    """A manifest of another program may have other names."""
    content = json.loads((copy / "manifest.json").read_text())
    old, content["examples"][1]["name"] = content["examples"][1]["name"], "my photo"
    (copy / "manifest.json").write_text(json.dumps(content))
    for part in ("images", "masks"):
        (copy / part / f"{old}.png").rename(copy / part / "my photo.png")
    assert manifest.Manifest(str(copy))[1].name == "my photo"


def test_nothing_is_overwritten_and_nothing_half_written_left(tmp_path):
    (tmp_path / "there").mkdir()
    assert len(written(tmp_path / "there")) == 5  # empty: it may be
    with pytest.raises(ValueError, match="there is there and not an empty directory"):
        written(tmp_path / "there")

    def failing():
        yield from scoring.batches(2, 2)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        manifest.write(str(tmp_path / "new"), failing(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_changed_pixels_are_found(copy, original, part):
    """A changed grey level of an image or pixel of a mask is noticed when the example is read."""
    name = original[1][2].name
    pixels = cv2.imread(str(copy / part / f"{name}.png"), cv2.IMREAD_UNCHANGED)
    pixels[15, 15] = pixels[15, 15] ^ 1 if part == "images" else 255
    cv2.imwrite(str(copy / part / f"{name}.png"), pixels)
    result = manifest.Manifest(str(copy))
    assert result[1].name == original[1][1].name
    with pytest.raises(ValueError, match=rf"the pixels of .*{part}/{name}.png are not those of manifest.json"):
        result[2]


@pytest.mark.parametrize(("value", "message"), [(7, r"has 1 grey pixels"), (0, r"has no hole")])
def test_masks_are_black_and_white(copy, original, value, message):
    name = original[1][0].name
    pixels = np.zeros((20, 24), np.uint8)
    pixels[3, 4] = value
    cv2.imwrite(str(copy / "masks" / f"{name}.png"), pixels)
    with pytest.raises(ValueError, match=rf"{name}.png {message}; needs 255 for the hole"):
        manifest.Manifest(str(copy))[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("size"),
        lambda content: content.update(size=[8, 24]),
        lambda content: content.update(size=7),
        lambda content: content.update(channels=4),
        lambda content: content.update(hole=0),
        lambda content: content.update(examples=[]),
        lambda content: content["examples"][0].pop("mask_sha256"),
        lambda content: content["examples"][0].update(name=content["examples"][1]["name"]),
        lambda content: content["examples"][0].update(name="../../outside"),
        lambda content: content["examples"][0].update(name=""),
        lambda content: content["examples"][0].update(name=3),
    ],
)
def test_what_is_not_a_manifest_is_refused(copy, spoil):
    content = json.loads((copy / "manifest.json").read_text())
    spoil(content)
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"manifest.json is not a manifest; needs size"):
        manifest.Manifest(str(copy))


def test_a_manifest_that_is_absent_or_torn(copy, tmp_path):
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        manifest.Manifest(str(copy))
    with pytest.raises(ValueError, match=r"manifest.json is missing: write a manifest with"):
        manifest.Manifest(str(tmp_path))


def spoil_files(directory, names):
    """Missing, surplus and unfit files are listed; hidden files are ignored."""
    (directory / f"{names[0]}.png").unlink()
    for surplus in ("extra.png", f"{names[0]}.jpg"):
        (directory / surplus).write_bytes(b"")
    cv2.imwrite(str(directory / f"{names[1]}.png"), np.zeros((24, 20, 3), np.uint8))
    cv2.imwrite(str(directory / f"{names[2]}.png"), np.zeros((20, 24, 4), np.uint8))
    (directory / f"{names[3]}.png").write_bytes(b"no image")
    (directory / ".DS_Store").write_bytes(b"")


PROBLEMS = (
    r"does not match the 5 inputs: 1 missing \({0}.png\); 2 that no input has the name of \({0}.jpg, extra.png\); "
    r"3 unfit \({1}.png is 20x24 RGB, needs 24x20 RGB of 8 bits, {2}.png is 24x20 RGBA, needs 24x20 RGB of 8 bits, "
    r"{3}.png is not a PNG\)"
)


@pytest.mark.parametrize(("part", "wanted"), [("images", "24x20 RGB of"), ("masks", "24x20 grey of")])
def test_files_of_a_manifest_are_checked_at_once(copy, part, wanted):
    names = manifest.Manifest(str(copy)).names
    spoil_files(copy / part, names)
    with pytest.raises(ValueError, match=PROBLEMS.format(*names).replace("24x20 RGB of", wanted)):
        manifest.Manifest(str(copy))


@pytest.fixture
def results(original, tmp_path):
    """Writes results of another program: the images, brighter by 10 everywhere."""
    (tmp_path / "results").mkdir()
    for example in original[1]:
        brighter = np.minimum(example.image.astype(int) + 10, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "results" / f"{example.name}.png"), brighter[..., ::-1])
    return tmp_path / "results"


def of(results, original):
    return predictions.method(str(results), tuple(e.name for e in original[1]), (20, 24), 3)


def test_predictions_are_matched_by_name(results, original):
    """Results are matched by name in any order, and valid pixels are not taken from them."""
    method, examples = of(results, original), original[1]
    for chosen in (examples[:3], examples[::-1]):
        expected = [np.minimum(example.image.astype(int) + 10, 255) for example in chosen]
        np.testing.assert_array_equal(method(chosen), expected)
    records = scores.score({"theirs": method}, [examples])
    noisy = {r["name"]: r["hole_psnr"] for r in records}
    for example, output in zip(examples, method(examples), strict=True):
        error = (output.astype(float) - example.image)[example.mask[..., 0] == 0]
        assert noisy[example.name] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), rel=1e-5)
    assert all(r["raw_psnr"] < r["psnr"] for r in records)


def test_predictions_that_do_not_match_are_all_listed(results, original):
    """Missing, surplus and unfit results are refused before anything is scored."""
    spoil_files(results, [example.name for example in original[1]])
    with pytest.raises(ValueError, match=PROBLEMS.format(*(example.name for example in original[1]))):
        of(results, original)


def test_long_lists_are_cut(original, tmp_path):
    for index in range(8):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"8 that no input has the name of \(0.png, .*, 4.png and 3 more\)"):
        of(tmp_path, original)
    with pytest.raises(ValueError, match=r"absent is not a directory; needs one with 5 files <name>.png"):
        of(tmp_path / "absent", original)


def test_a_damaged_prediction_is_named(results, original):
    """A file with a right header and no pixels is refused when it is read."""
    path = results / f"{original[1][1].name}.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"{path.name} is damaged"):
        of(results, original)(original[1])
