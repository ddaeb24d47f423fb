"""Tests of bad input to the commands: one line with the problem and the remedy, or the documented outcome.

No traceback is shown and nothing is written. docs/faults.md is the table of all faults and their tests.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import socket
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

import networks
import pictures
import runs
from pconv_jax.data import masks, pipeline, sources
from pconv_jax.models import vgg
from pconv_jax.training import build, checkpoints, reporting, rundir

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXPERIMENT = "--config=tests/tiny_experiment.py"


def tree(directory):
    """Returns all files of a directory with content and modification time."""
    files = {}
    for path in sorted(directory.rglob("*")):
        about = path.lstat()
        files[path.relative_to(directory)] = (about.st_mode, about.st_mtime_ns, path.is_file() and path.read_bytes())
    return files


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def image_folder(directory, *contents):
    for k, content in enumerate(contents):
        write(directory / f"{k}.png", content)
    return ["--config.data.source=folder", f"--config.data.path={directory}"]


def mask_folder(directory, *values, use="masks"):
    directory.mkdir(parents=True, exist_ok=True)
    for k, value in enumerate(values):
        image = np.full((16, 16), value, np.uint8) if isinstance(value, int) else value
        write(directory / f"{k}.png", image if isinstance(image, bytes) else pictures.encode(image[..., None]))
    return [f"--config.{use}.kind=folder", f"--config.{use}.path={directory}"]


def experiment(directory, content):
    return [f"--config={write(directory / 'mine.py', content)}"]


def a_run(directory, **changes):
    """Makes a run directory of the tiny experiment without checkpoints, in which files are changed."""
    rundir.claim(str(directory / "run"), runs.tiny(), {"train": "12 files", "evaluation": "4 files"})
    for name, content in changes.items():
        path = directory / "run" / name.replace("_json", ".json")
        path.unlink(missing_ok=True)
        if content is not None:
            write(path, content)
    return []


def a_run_with_masks(directory):
    """Makes a run directory whose training masks were nine files of a folder, and returns the arguments of its run."""
    arguments = mask_folder(directory / "m", left_half())
    config = runs.tiny(**{"masks.kind": "folder", "masks.path": str(directory / "m")})
    fingerprints = build.fingerprints(config, *build.image_sources(config))
    rundir.claim(str(directory / "run"), config, {**fingerprints, "train masks": "9 files"})
    return arguments


def an_empty_run(directory, **files):
    """Makes a run directory of the tiny experiment without checkpoints, and files in it."""
    config = runs.tiny()
    rundir.claim(str(directory / "run"), config, build.fingerprints(config, *build.image_sources(config)))
    for name, content in files.items():
        write(directory / "run" / name, content)


def an_evaluation_with_masks(directory):
    """Makes a run directory whose evaluation masks were nine files."""
    mask_folder(directory / "m", left_half())
    config = runs.tiny(**{"eval.masks.kind": "folder", "eval.masks.path": str(directory / "m")})
    recorded = build.fingerprints(config, *build.image_sources(config))
    rundir.claim(str(directory / "run"), config, {**recorded, "evaluation masks": "9 files"})


def vgg_weights(path, **changes):
    arrays, inputs = {"order": "RGB", "scale": 1.0, "mean": np.zeros(3), "std": np.ones(3)}, 3
    for name, outputs in (layer for layer in vgg.LAYERS if layer is not None):
        arrays |= {f"{name}/kernel": np.zeros((3, 3, inputs, outputs), np.float32), f"{name}/bias": np.zeros(outputs)}
        inputs = outputs
    np.savez(path, **(arrays | changes))
    return [f"--config.loss.vgg16_weights={path}"]


def overridden(**changes):
    return [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]


def left_half():
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :8] = 255
    return mask


NOISE = pictures.encode(pictures.noise(0))

# What training is asked to do, by fault: a function of an empty directory that gives arguments, and what is told.
# `--workdir` is `run` in that directory and the experiment the tiny one, unless the arguments name others.
REFUSED = {
    "images: no such folder": (lambda d: image_folder(d / "none"), "none is not a directory: set data.path"),
    "images: a file for a folder": (
        lambda d: overridden(data__source="folder", data__path=write(d / "a.png", NOISE)),
        r"a\.png is not a directory: set data.path to a folder of images",
    ),
    "images: an empty folder": (
        lambda d: (d / "photos").mkdir() or image_folder(d / "photos"),
        r"no images \(.jpg, .* under .*photos: set data.path",
    ),
    "images: a single one": (lambda d: image_folder(d / "photos", NOISE), "has 1 image; needs at least 2"),
    "images: all unreadable": (
        lambda d: image_folder(d / "photos", b"", b"text", NOISE[:99]),
        "2 images in a row cannot be decoded, from .*: check the files",
    ),
    "images: all larger than the limit": (
        lambda d: image_folder(d / "photos", NOISE, NOISE) + overridden(data__max_pixels=2399),
        r"png: is 60x40, more than 2399 pixels: raise data.max_pixels[^$]*error: 1 images in a row",
    ),
    "images: the same for training and evaluation": (
        lambda d: image_folder(d / "photos", NOISE, NOISE) + overridden(data__eval_path=d / "photos"),
        "all images of .*photos are evaluation images of .*photos: they need to be apart",
    ),
    "masks: no such folder": (
        lambda d: overridden(masks__kind="folder", masks__path=d / "none"),
        "none is not a directory: set the path of the mask folder",
    ),
    "masks: an empty folder": (lambda d: mask_folder(d / "m"), r"no mask images \(.jpg, .*: set the path"),
    "masks: all hole": (
        lambda d: mask_folder(d / "m", 255, 255) + overridden(masks__augment=False),
        r"2 masks of .*m have hole areas of 1.000 to 1.000, none fits \(0.01, 0.6\).*check the polarity \(white_hole",
    ),
    "masks: all valid": (
        lambda d: mask_folder(d / "m", 0, 0) + overridden(masks__augment=False),
        r"2 masks of .*m have hole areas of 0.000 to 0.000, none fits \(0.01, 0.6\).*\(white_hole\)",
    ),
    "masks: grey, all below the threshold": (
        lambda d: mask_folder(d / "m", 127) + overridden(masks__augment=False),
        "whose brightest value is 127 of 255, so that nothing is white: save it[^$]*of 1 masks of .*m 1 c",
    ),
    "masks: none readable": (
        lambda d: mask_folder(d / "m", b"", b"text"),
        "m/0.png: is empty[^$]*m/1.png: is not an image[^$]*of 100 masks of .*m 100 cannot be read, .*check the files",
    ),
    "masks: none for a bucket of the evaluation": (
        lambda d: mask_folder(d / "m", left_half(), use="eval.masks"),
        r"1 masks of .*m have hole areas of 0.500 to 0.500, none fits \(0.01, 0.1\)",
    ),
    "masks: a hole in the border": (
        lambda d: mask_folder(d / "m", left_half()) + overridden(masks__augment=False, masks__border=0.1),
        "of 1 masks of .*m 1 cannot be read, or have a hole in the border of 0.1: check the files, or set the border",
    ),
    "config: an unknown key": (lambda d: overridden(trian__steps=3), "unknown key trian.steps: did you mean train.st"),
    "config: a section for a key": (lambda d: overridden(train=3), r"unknown key train\b"),
    "config: a text for a number": (
        lambda d: overridden(train__steps="many"),
        "--config.train.steps=many: invalid literal .*; needs an integer of at least 0",
    ),
    "config: a fraction for an integer": (
        lambda d: overridden(train__batch_size=1.5),
        "--config.train.batch_size=1.5: .*; needs an integer of at least 1",
    ),
    "config: nothing for a number": (lambda d: overridden(optim__lr=""), "--config.optim.lr=: .*; needs a number of"),
    "config: no number": (lambda d: overridden(optim__lr="nan"), "optim.lr is nan; needs a number of at least 0"),
    "config: a number for a pair": (lambda d: overridden(masks__area=0.1), r"masks.area is \(0.1,\); needs a pair"),
    "config: half a pair": (lambda d: overridden(masks__area="(0.1,"), r"--config.masks.area=\(0.1,: .*needs a pair"),
    "config: code for a tuple": (
        lambda d: overridden(model__kernels=f"[open('{d}/trap','w')]"),
        r"model.kernels is .*trap.*; needs odd integers",
    ),
    "config: a size that cannot be halved": (
        lambda d: overridden(data__size=17),
        r"data.size: image is 17x17; needs multiples of 4 \(2 downsampling stages\)",
    ),
    "config: a folder without a path": (lambda d: overridden(data__source="folder"), "data.path is empty: set --con"),
    "config: nothing to learn": (lambda d: overridden(train__steps=0), "train.steps and finetune.steps are both 0"),
    "config: a batch that devices cannot share": (
        lambda d: overridden(train__batch_size=6),
        "train.batch_size is 6 on 4 devices; needs a multiple of 4",
    ),
    "config: an area without pixels": (
        lambda d: overridden(masks__area="(0.5, 0.501)"),
        r"no mask of 16x16 has a hole area in \(0.5, 0.501\): widen the range",
    ),
    "command line: an unknown flag": (lambda d: ["--stpes=3"], "Unknown command line flag 'stpes'. Did you mean: st"),
    "command line: a flag without its value": (
        lambda d: ["--config.data.path"],
        "Missing value for flag --config.data",
    ),
    "command line: no experiment": (lambda d: ["--config="], "'' is no file: give an experiment, e.g. --config="),
    "experiment: not there": (lambda d: [f"--config={d}/none.py"], "none.py' is no file: give an experiment"),
    "experiment: a directory": (lambda d: [f"--config={d}"], "is no file: give an experiment"),
    "experiment: wrong syntax": (
        lambda d: experiment(d, "def get_config(:\n"),
        r"mine.py: invalid syntax \(mine.py, line 1\)",
    ),
    "experiment: not text": (
        lambda d: experiment(d, b"\xff\xfe"),
        r"mine.py: .*can't decode byte 0xff .*mine.py, line 1",
    ),
    "experiment: no get_config": (lambda d: experiment(d, "x = 1\n"), r"mine.py has no get_config\(\): start from"),
    "experiment: raises": (
        lambda d: experiment(d, "def get_config():\n    return 1 / 0\n"),
        "mine.py, line 2: ZeroDivisionError: division by zero",
    ),
    "experiment: raises a ValueError": (
        lambda d: experiment(d, "def get_config():\n    return int('x')\n"),
        "mine.py, line 2: ValueError: invalid literal for int",
    ),
    "experiment: reads a file that is not there": (
        lambda d: experiment(d, "\n\ndef get_config():\n    return open('/none')\n"),
        "mine.py, line 4: FileNotFoundError: .*'/none'",
    ),
    "experiment: imports what is not there": (
        lambda d: experiment(d, "\nimport nothing_like_this\n"),
        "mine.py, line 2: ModuleNotFoundError: No module named 'nothing_like_this'",
    ),
    "experiment: gives a dict": (
        lambda d: experiment(d, "def get_config():\n    return {'name': 'mine'}\n"),
        r"mine.py: get_config\(\) returns dict; needs a ConfigDict: start from experiments/default.py",
    ),
    "experiment: gives nothing": (lambda d: experiment(d, "def get_config():\n    pass\n"), "did you forget a return"),
    "experiment: JSON": (lambda d: experiment(d, '{"name": "x"}'), r"mine.py has no get_config\(\)|gives NoneType"),
    "experiment: an unknown key": (
        lambda d: experiment(
            d, "from tests import runs\ndef get_config():\n    c = runs.tiny()\n    c.optm = 1\n    return c\n"
        ),
        "unknown key optm",
    ),
    "run directory: a file": (lambda d: write(d / "run", "mine") and [], "run is a file; needs a directory: choose"),
    "run directory: under a file": (
        lambda d: [f"--workdir={write(d / 'file', 'x')}/run"],
        "Not a directory; .*/file/run cannot be written: make room, or choose another --workdir",
    ),
    "run directory: read only": (
        lambda d: ["--workdir=/proc/run"],
        "; /proc/run cannot be written: make room, or choose another --workdir",
    ),
    "run directory: a link to itself": (
        lambda d: (d / "run").symlink_to(d / "run") or [],
        "run cannot be written: make room, or choose another --workdir",
    ),
    "run directory: somebody else's": (
        lambda d: write(d / "run" / "thesis.tex", "mine") and [],
        "run is not empty and has no config.json: choose another --workdir",
    ),
    "run directory: config.json cut off": (
        lambda d: a_run(d, config_json='{"name": "ti'),
        r"config.json is not JSON \(.*\): restore it, or choose another --workdir",
    ),
    "run directory: config.json not text": (lambda d: a_run(d, config_json=b"\xff\0"), "config.json is not JSON"),
    "run directory: config.json a list": (
        lambda d: a_run(d, config_json="[1]"),
        "config.json is JSON, but not an object",
    ),
    "run directory: config.json endlessly deep": (
        lambda d: a_run(d, config_json="[" * 200_000),
        "config.json is not JSON",
    ),
    "run directory: config.json of another program": (
        lambda d: a_run(d, config_json='{"rate": 3, "name": []}'),
        r"belongs to a run with another config .*name: \[\] there, tiny now; .*rate: 3 there, absent now",
    ),
    "run directory: config.json with impossible keys": (
        lambda d: a_run(d, config_json='{"learning.rate": 3}'),
        "config.json is no config .*: restore it, or choose another --workdir",
    ),
    "run directory: another config": (
        lambda d: a_run(d) + overridden(optim__lr=0.5),
        r"another config \(optim.lr: 0.001 there, 0.5 now\): choose another --workdir",
    ),
    "run directory: other images": (lambda d: a_run(d), r"other images \(train: 12 files there, 12 files, sha256 "),
    "run directory: other masks": (
        lambda d: a_run_with_masks(d),
        r"masks or weights \(train masks: 9 files there, 1 files",
    ),
    "run directory: data.json gone": (
        lambda d: a_run(d, data_json=None),
        "data.json cannot be read .No such file.*restore it",
    ),
    "run directory: data.json cut off": (lambda d: a_run(d, data_json='{"tr'), "data.json is not JSON .*restore it"),
    "run directory: data.json a list": (lambda d: a_run(d, data_json="[]"), "data.json is JSON, but not an object"),
    "weights: not there": (
        lambda d: overridden(loss__vgg16_weights=d / "none.npz"),
        "no VGG16 weights at .*none.npz: run python -m pconv_jax.tools.prepare_vgg16",
    ),
    "weights: no npz": (
        lambda d: overridden(loss__vgg16_weights=write(d / "w.npz", b"text")),
        r"w.npz is no npz \(.*\): make one with python -m pconv_jax.tools.prepare_vgg16",
    ),
    "weights: an npz with pickles": (
        lambda d: vgg_weights(d / "w.npz", order=np.array(["RGB"], dtype=object)),
        r"w.npz is no npz \(Object arrays cannot be loaded when allow_pickle=False\)",
    ),
    "weights: another shape": (
        lambda d: vgg_weights(d / "w.npz", **{"conv1_2/kernel": np.zeros((3, 3, 3, 64))}),
        r"conv1_2/kernel in .* has shape \(3, 3, 3, 64\); needs \(3, 3, 64, 64\)",
    ),
    "transfer: from no run": (
        lambda d: overridden(init_from=d),
        "holds no checkpoint: give a run directory, or one of its checkpoints/<step>",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_training_is_refused(fault, server, tmp_path):
    """A refused training prints one line without a traceback, exits with 1, and changes no file."""
    prepare, message = REFUSED[fault]
    arguments = prepare(tmp_path)
    before = tree(tmp_path)
    experiment = [] if any(word.startswith("--config=") for word in arguments) else [EXPERIMENT]
    code, printed = server(tmp_path, "main", [*experiment, f"--workdir={tmp_path / 'run'}", *arguments])
    assert re.search(message, printed), printed
    assert code == 1 and "Traceback" not in printed and "\nerror: " in f"\n{printed}", printed
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("failure", "message", "trace"),
    [
        ("host memory", r"error: out of memory \(Unable to allocate 7.00 TiB .*\): lower train.batch_size", False),
        ("device memory", r"error: out of memory \(RESOURCE_EXHAUSTED: .* 9 bytes.\): lower train.batch_size", False),
        ("worker", r"error: Worker process was .* code -9.*lower data.workers; the same command goes on", False),
        ("a defect", "INTERNAL: something else", True),
    ],
)
def test_out_of_memory(failure, message, trace, server, tmp_path):
    """Running out of memory is reported with what to lower; other failures of a device keep their traceback."""
    code, printed = server(tmp_path, "main", [EXPERIMENT, f"--workdir={tmp_path / 'run'}"], failure)
    assert code == 1 and re.search(message, printed) and ("Traceback" in printed) == trace


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: None, r"run holds no run \(config.json is missing\): give the directory that training wrote"),
        (lambda d: an_empty_run(d), "run has no checkpoint yet: wait for the first one, or train again"),
        (
            lambda d: a_run(d, config_json=json.dumps(runs.tiny(**{"train.steps": 1}).to_dict()).replace("true", "7")),
            r"the config does not work:[^$]*data.flip is 7; needs True or False",
        ),
        (
            lambda d: an_empty_run(d, checkpoints=b"x"),
            "checkpoints is a file; needs the directory of checkpoints: move it",
        ),
        (
            lambda d: a_run(d, data_json=json.dumps({"evaluation": "5 files"})),
            r"run was trained beside other evaluation images \(5 files then, 4 files, sha256 .*: restore them",
        ),
        (
            lambda d: an_evaluation_with_masks(d),
            r"run was trained beside other evaluation masks \(9 files then, 1 files, sha256 .*: restore them",
        ),
        (lambda d: write(d / "run", "x"), "run holds no run"),
    ],
)
def test_evaluation_is_refused(change, message, server, tmp_path):
    """Evaluation refuses a directory that is no run or has nothing to evaluate."""
    change(tmp_path)
    code, printed = server(tmp_path, "evaluate", [f"--run={tmp_path / 'run'}"])
    assert re.search(message, printed), printed
    assert code == 1 and "Traceback" not in printed and "\nerror: " in f"\n{printed}"
    assert not (tmp_path / "run" / "eval").exists()


def claimed(encoded, width, height):
    """Returns a PNG whose header claims a size, with a correct checksum."""
    header = encoded[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + encoded[24:29]
    return encoded[:12] + header + zlib.crc32(header).to_bytes(4, "big") + encoded[33:]


def pillow(kind, image=None, **options):
    file = io.BytesIO()
    (image or PIL.Image.fromarray(pictures.noise(1))).save(file, kind, **options)
    return file.getvalue()


def frames():
    return {"save_all": True, "append_images": [PIL.Image.fromarray(pictures.noise(2))]}


JPEG = pillow("JPEG", quality=95)

# Files of an image folder that are passed over, by name: content and reason. None: made by `fill_zoo`.
SKIPPED = {
    "empty.png": (b"", "is empty"),
    "text.jpg": (b"text", "is not an image of a known format; needs JPEG, PNG, WebP, TIFF or BMP"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "is a JPEG without its end: cut off, or never written to the end"),
    "zeros at the end.jpg": (JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2), "is a JPEG without its end"),
    "header.jpg": (JPEG[:30], "has a damaged header, or is cut off in it"),
    "truncated.png": (NOISE[: len(NOISE) // 2], "is damaged, or cut off"),
    "header.png": (NOISE[:20], "has a damaged header"),
    "flipped.png": (NOISE[:2000] + b"\0\1\2\3" + NOISE[2004:], "is damaged, or cut off"),
    "truncated.webp": (pillow("WEBP")[:-500], "is damaged, or cut off"),
    "truncated.bmp": (pillow("BMP")[:-500], "is damaged, or cut off"),
    "bomb.png": (claimed(NOISE, 60000, 50000), "is 60000x50000, more than 100000000 pixels: raise data.max_pixels"),
    "bomb.bmp": (b"BM" + bytes(12) + struct.pack("<Iii", 40, 60000, -50000) + bytes(99), "is 60000x50000, more"),
    "bomb.jpg": (JPEG.replace(struct.pack(">HH", 40, 60), b"\xff\xfe\xff\xfd"), "is 65533x65534, more"),
    "nothing.png": (claimed(NOISE, 0, 0), "has a damaged header: it gives no pixels"),
    "gif.png": (pillow("GIF", **frames()), "is a GIF; needs JPEG, PNG, WebP, TIFF or BMP: convert it first"),
    "CMYK.jpg": (pillow("JPEG", PIL.Image.new("CMYK", (9, 8), (0, 255, 255, 0))), "is CMYK; needs grey or RGB"),
    "animated.webp": (pillow("WEBP", lossless=True, **frames()), "is an animation; needs one image"),
    "animated.png": (pillow("PNG", **frames()), "has 2 frames; needs one"),
    "directory link.png": (None, "Is a directory"),
    "dead link.png": (None, "No such file"),
    "looping link.png": (None, "Too many levels of symbolic links"),
    "pipe.png": (None, "is a pipe or a device; needs a file"),
    "device.png": (None, "is a pipe or a device; needs a file"),
    "socket.png": (None, "No such device or address"),
    "huge.png": (None, "has 2199023255552 bytes; needs at most 2147483648"),
    "line\nbreak.png": (b"", "is empty"),
    os.fsdecode(b"not-unicode-\xff.png"): (b"", "is empty"),
}

# Files that are odd and used: content and, for those without loss, pixels.
USED = {
    "1x1.png": (pillow("PNG", PIL.Image.new("RGB", (1, 1), (9, 8, 7))), np.full((1, 1, 3), (9, 8, 7))),
    "1x999.png": (pillow("PNG", PIL.Image.new("RGB", (999, 1), (9, 8, 7))), np.full((1, 999, 3), (9, 8, 7))),
    "TIFF.png": (pillow("TIFF"), pictures.noise(1)),
    "16 bits.png": (pictures.encode(np.full((8, 9, 3), 257 * 77, np.uint16)), np.full((8, 9, 3), 77)),
    "PNG.jpg": (NOISE, pictures.noise(0)),
    "-dash.png": (NOISE, pictures.noise(0)),
    " spaces .png": (NOISE, pictures.noise(0)),
    "used\nline break.png": (NOISE, pictures.noise(0)),
    os.fsdecode(b"used-not-unicode-\xff.png"): (NOISE, pictures.noise(0)),
    "junk behind.jpg": (JPEG + b"junk" * 99, None),
}


def fill_zoo(folder):
    """Makes a folder with every kind of file above."""
    for name, (content, _) in (SKIPPED | USED).items():
        if content is not None:
            write(folder / name, content)
    (folder / "directory").mkdir()
    (folder / "directory" / "loop").symlink_to(folder)
    (folder / "directory link.png").symlink_to(folder / "directory")
    (folder / "dead link.png").symlink_to(folder / "nowhere")
    (folder / "looping link.png").symlink_to(folder / "looping link.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(folder):
        bound.bind("socket.png")
    with open(folder / "huge.png", "wb") as file:
        file.truncate(2**41)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "photos"
    fill_zoo(folder)
    return folder


# A link to a directory is no file: the walk goes into it, and finds nothing that it has not seen.
LISTED = sorted((SKIPPED.keys() | USED.keys()) - {"directory link.png"})


@pytest.mark.parametrize("name", [name for name in SKIPPED if name in LISTED], ids=ascii)
def test_images_that_are_skipped(name, zoo, caplog):
    """An unusable image is reported in one line with the reason, and the next image is used."""
    good = "PNG.jpg"
    decoded = sources.DecodedSource(sources.FileSource(str(zoo), (name, good)), max_pixels=100_000_000)
    image, skipped = decoded[0]
    assert skipped == 1
    np.testing.assert_array_equal(image, USED[good][1])
    (message,) = [record.getMessage() for record in caplog.records]
    shown = name if name.isprintable() else repr(name)
    assert re.fullmatch(rf"skipped {re.escape(shown)}: .*{SKIPPED[name][1]}.*\(1 skipped so far\)", message), message


@pytest.mark.parametrize("name", USED, ids=ascii)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_are_odd_and_used(name, zoo, channels):
    """Unusual images are decoded as viewers show them, and a crop can be taken from each."""
    decoded = sources.DecodedSource(sources.FileSource(str(zoo), (name,)), channels, max_pixels=100_000_000)
    image, skipped = decoded[0]
    assert skipped == 0 and image.dtype == np.uint8 and image.shape[-1] == channels
    if USED[name][1] is not None and channels == 3:
        np.testing.assert_array_equal(image, USED[name][1])
    assert pipeline.crop(image, pipeline.View(16, (0.1, 1.0), True, True, True), np.random.default_rng(0)).shape == (
        16,
        16,
        channels,
    )


def test_a_folder_of_everything(zoo, server, tmp_path):
    """Training and evaluation succeed with the usable images and report each other file in one line."""
    assert sources.folder(str(zoo)).names == tuple(LISTED)
    arguments = overridden(data__source="folder", data__path=zoo, data__eval_fraction=0.4, eval__examples=16)
    arguments += overridden(train__steps=3, train__checkpoint_every=3, train__log_every=3, train__sample_every=3)
    code, printed = server(tmp_path, "main", [EXPERIMENT, f"--workdir={tmp_path / 'run'}", *arguments])
    assert code == 0 and "Traceback" not in printed, printed
    for name in set(SKIPPED) & set(LISTED):
        shown = name if name.isprintable() else repr(name)
        assert printed.count(f"] skipped {shown}: ") == 1, name
    assert "corrupt images skipped" in printed and "| Telea |" in printed
    assert json.loads((tmp_path / "run" / "eval" / "last.json").read_text())["step"] == 3


def test_a_damaged_mask_ends_no_run(tmp_path, caplog):
    """Unusable masks are skipped and reported once, and an image that is too large is not decoded."""
    mask_folder(tmp_path, left_half(), b"", b"text", claimed(pictures.encode(left_half()[..., None]), 60000, 50000))
    family = masks.Family("folder", (0.1, 0.6), path=str(tmp_path), augment=False)
    for index in range(40):
        mask = masks.draw(family, 0, 0, index, (16, 16))[..., 0]
        np.testing.assert_array_equal(mask, 1 - left_half() // 255)
    messages = sorted(record.getMessage().partition(": ")[2] for record in caplog.records)
    reasons = ["is 60000x50000, more than 100000000 pixels", "is empty", "is not an image of a known format"]
    assert len(messages) == 3 and all(m.startswith(r) for m, r in zip(messages, reasons, strict=True)), messages


def test_masks_that_seldom_fit_are_reported(tmp_path, caplog):
    """If one of forty masks fits, training starts, logs how many fit, and every draw finds it."""
    mask_folder(tmp_path, left_half(), *[0] * 39)
    family = masks.Family("folder", (0.1, 0.6), path=str(tmp_path), augment=False)
    masks.check_folder(family, [family.area], (16, 16))
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"of 40 masks tried in {tmp_path}, 1 fit the hole area (0.1, 0.6)" in message
    drawn = [masks.hole_area(masks.draw(family, 0, 0, index, (16, 16))) for index in range(30)]
    assert drawn == [0.5] * 30


def test_versions_that_cannot_be_read_are_reported(tmp_path, caplog):
    """A damaged file that only serves a warning is replaced, and the run continues."""
    rundir.claim(str(tmp_path / "run"), runs.tiny(), {})
    for content in ("{", "[]"):
        caplog.clear()
        (tmp_path / "run" / "versions.json").write_text(content)
        rundir.claim(str(tmp_path / "run"), runs.tiny(), {})
        assert "versions.json is" in caplog.text and "JSON" in caplog.text


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\n", b"[1, 2]\n", b'{"loss": 1}\n', b"3\n", b"\0" * 99])
def test_rubbish_in_the_metrics_is_dropped(tmp_path, rubbish):
    """A damaged line of the metrics is dropped with all that follow; the lines before it stay."""
    write(tmp_path / "metrics.jsonl", b'{"step": 1}\n' + rubbish + b'{"step": 2}\n')
    with reporting.MetricsLog(str(tmp_path), 2) as log:
        log.write(3, {"loss": 1.0})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 3]


def test_a_lock_that_cannot_be_made(tmp_path):
    """A lock that cannot be created, as on a read-only file system, is reported."""
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(OSError, match="cannot be written: make room, or choose another --workdir"),
        rundir.lock(str(tmp_path)),
    ):
        pass


def test_foreign_files_among_the_checkpoints(tmp_path):
    """Unknown files among the checkpoints are left alone; an empty numbered directory is a damaged checkpoint."""
    config = runs.tiny()
    networks.save_run(tmp_path / "run", config, [(networks.random_state(config), 20.0)])
    for name in ("notes.txt", "12"):
        write(tmp_path / "run" / "checkpoints" / name, "mine")
    (tmp_path / "run" / "checkpoints" / "13").mkdir()
    with checkpoints.open_manager(str(tmp_path / "run")) as manager:
        assert int(checkpoints.resume(manager, build.state_shapes(config)).step) == 0
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["0", "12", "notes.txt"]
    assert os.listdir(tmp_path / "run" / "damaged") == ["13"]


def test_the_table_of_faults():
    """docs/faults.md lists at least 40 faults, each with tests that exist."""
    text = (ROOT / "docs" / "faults.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "::test_" in line]
    named = re.findall(r"`(tests/\w+\.py)::(test_\w+)(?:\[([^\]`]+)\])?`", text)
    assert len(rows) >= 40 and all(re.search(r"`tests/\w+\.py::test_\w+", row) for row in rows)
    assert text.count("::") == len(named)
    for file, test, case in named:
        content = (ROOT / file).read_text()
        assert f"\ndef {test}(" in content and (not case or f'"{case}' in content), (file, test, case)
    covered = {case for _, test, case in named if test == "test_training_is_refused"}
    assert covered == REFUSED.keys()
