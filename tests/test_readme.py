"""Tests of the README: every command and snippet runs."""

import os
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest

import networks
import runs
from pconv_jax.inpainting import weights_file

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

SMALL = {
    "data.size": 16,
    "model.depth": 2,
    "model.width": 8,
    "model.kernels": (3,),
    "model.conv_impl": "xla",  # It compiles fastest.
    "train.steps": 2,
    "finetune.steps": 0,
    "train.batch_size": 4,
    "optim.warmup_steps": 0,
    "eval.examples": 6,
    "eval.batch_size": 8,
}


def blocks(language):
    """Returns the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    """Returns the lines of the bash blocks without their comments."""
    lines = [line.split("  #")[0].split("    #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def command(start):
    """Returns the one command of the bash blocks that starts with these words."""
    (line,) = [line for line in commands() if line.startswith(f"./launch.sh {start}")]
    return line


def launch(line, cwd, *extra):
    """Runs a command line of the README with this interpreter in place of .venv, and returns the printed text."""
    words = line.replace("./launch.sh", str(ROOT / "launch.sh")).split()
    environment = {**os.environ, "PCONV_PYTHON": sys.executable}
    done = subprocess.run([*words, *extra], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_links_lead_somewhere():
    """Files that the README links to exist, and no placeholder is left."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).is_file() for link in links)
    assert not re.search(r"[A-Z]{4,}_[A-Z]{4,}", README)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a directory with the weights of a small network, in place of those that the package contains."""
    directory = tmp_path_factory.mktemp("readme")
    config = runs.tiny()
    run = networks.save_run(directory / "run", config, [(networks.random_state(config), 20.0)])
    networks.export(run, directory / "small.safetensors", threshold=6)
    return directory


@pytest.mark.parametrize("snippet", blocks("python"))
def test_snippets_run(snippet, place, monkeypatch):
    """Every snippet runs in a fresh namespace, as pasted."""
    monkeypatch.setattr(weights_file, "PRETRAINED", str(place / "small.safetensors"))
    names = {}
    exec(snippet, names)
    if "new_mask" in names:
        assert names["y"].shape == (1, 32, 32, 16) and names["new_mask"].shape == (1, 32, 32, 1)
    else:
        np.testing.assert_array_equal(names["filled"][names["mask"]], names["image"][names["mask"]])


def test_every_command_is_tried():
    """The list has every command of the README, so that a new one needs a test."""
    assert commands() == [
        "./launch.sh inpaint photo.jpg mask.png filled.png",
        "./launch.sh web",  # tests/test_web_start.py
        "./launch.sh quickstart",
        "./launch.sh train experiments/folder.py --config.data.path=/path/to/photos",
        "./launch.sh train experiments/quickstart.py --config.train.steps=500 --workdir=runs/short",
        "./launch.sh evaluate --run=runs/quickstart --checkpoint=best",
        "./launch.sh test",
        "./launch.sh test -m slow",
    ]


def test_train_and_evaluate_commands(tmp_path):
    """Training and evaluation commands run as printed, with small configs and temporary directories."""
    small = [f"--config.{key}={value}" for key, value in SMALL.items()]
    run = tmp_path / "run"
    assert "| network |" in launch(command("quickstart"), tmp_path, *small, f"--workdir={run}")
    assert "| network |" in launch(command("evaluate").replace("runs/quickstart", str(run)), tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        cv2.imwrite(str(photos / f"{k}.jpg"), rng.integers(0, 256, (30, 40, 3), np.uint8))
    line = command("train experiments/folder.py").replace("/path/to/photos", str(photos))
    assert "| network |" in launch(line, tmp_path, *small, f"--workdir={tmp_path / 'folder'}")


def test_sweep_command(tmp_path):
    """The sweep in the text has 63 runs with a directory each; test_sweep_plan.py checks every config."""
    line = re.search(r"`(\./launch\.sh sweep [^`]+)`", README)[1]
    printed = launch(line, tmp_path, "--dry-run", f"--workdir={tmp_path}/ablation")
    workdirs = re.findall(r"--workdir=(\S+)", printed)
    assert len(set(workdirs)) == len(workdirs) == 63 and not list(tmp_path.iterdir())


def test_inpaint_command(place):
    """The command fills a photograph, here in another directory and by small weights; valid pixels are kept."""
    cv2.imwrite(str(place / "photo.jpg"), np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8))
    mask = np.zeros((30, 41), np.uint8)
    mask[10:15, 20:30] = 255
    cv2.imwrite(str(place / "mask.png"), mask)
    line = re.sub(r" (photo|mask|filled)", rf" {place}/\1", command("inpaint"))
    assert "41x30, hole 4.07%" in launch(line, place, f"--weights={place}/small.safetensors")
    filled, photo = (np.asarray(PIL.Image.open(place / name)) for name in ("filled.png", "photo.jpg"))
    np.testing.assert_array_equal(filled[mask == 0], photo[mask == 0])


def test_mask_command(tmp_path):
    """The command for masks, which stands in a sentence, works."""
    line = re.search(r"`(\./launch\.sh masks [^`]+)`", README)[1]
    out = tmp_path / "masks.png"
    assert "24 masks, hole area 1" in launch(line.replace("masks.png", str(out)), tmp_path)
    assert cv2.imread(str(out)) is not None


def test_test_command(tmp_path):
    """The command reaches pytest; running all tests from a test would never end."""
    assert "test_mask_command" in launch("./launch.sh test", tmp_path, "--collect-only", "-q", "-n0", __file__)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "unknown command fly"),
        (["train"], "train needs a config file first"),
        (["train", "--x"], "train needs"),
    ],
)
def test_launch_names_wrong_commands(arguments, message):
    done = subprocess.run([ROOT / "launch.sh", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr


def test_launch_help():
    done = subprocess.run([ROOT / "launch.sh"], capture_output=True, text=True, check=True)
    assert "quickstart" in done.stdout and "evaluate --run=DIR" in done.stdout
