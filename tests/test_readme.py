"""Every command and snippet of the README runs."""

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

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

SMALL = {
    "data.size": 16,
    "model.depth": 2,
    "model.width": 8,
    "train.steps": 2,
    "finetune.steps": 0,
    "train.batch_size": 4,
    "optim.warmup_steps": 0,
    "eval.examples": 6,
    "eval.batch_size": 8,
}


def blocks(language):
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    """The lines of the bash blocks without their comments."""
    lines = [line.split("  #")[0].split("    #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def launch(command, cwd, *extra):
    """Runs a command line of the README with this interpreter in place of .venv."""
    words = command.replace("./launch.sh", str(ROOT / "launch.sh")).split()
    environment = {**os.environ, "PCONV_PYTHON": sys.executable}
    done = subprocess.run([*words, *extra], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_links_lead_somewhere():
    """Files that the README points at are there, and nothing is left to be filled in."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).is_file() for link in links)
    assert not re.search(r"[A-Z]{4,}_[A-Z]{4,}", README)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with runs/quickstart, a small run."""
    directory = tmp_path_factory.mktemp("readme")
    config = runs.tiny()
    networks.save_run(directory / "runs" / "quickstart", config, [(networks.random_state(config), 20.0)])
    return directory


@pytest.mark.parametrize("snippet", blocks("python"))
def test_snippets_run(snippet, place, monkeypatch):
    """In a fresh namespace, as pasted."""
    monkeypatch.chdir(place)
    names = {}
    exec(snippet, names)
    if "new_mask" in names:
        assert names["y"].shape == (1, 32, 32, 16) and names["new_mask"].shape == (1, 32, 32, 1)
    else:
        np.testing.assert_array_equal(names["filled"][names["mask"]], names["image"][names["mask"]])


def test_every_command_is_tried():
    """A command that is added to the README needs a line here."""
    assert commands() == [
        "./launch.sh quickstart",
        "./launch.sh inpaint --run=runs/quickstart --image=photo.jpg --mask=mask.png --polarity=white_hole "
        "--out=filled.png",
        "./launch.sh train experiments/folder.py --config.data.path=/path/to/photos",
        "./launch.sh train experiments/quickstart.py --config.train.steps=500 --workdir=runs/short",
        "./launch.sh evaluate --run=runs/quickstart --checkpoint=best",
        "./launch.sh test",
        "./launch.sh test -m slow",
    ]


def test_train_and_evaluate_commands(tmp_path):
    """The commands as printed, with overrides that make them small, and run directories in a temporary place."""
    small = [f"--config.{key}={value}" for key, value in SMALL.items()]
    run = tmp_path / "run"
    assert "| network |" in launch(commands()[0], tmp_path, *small, f"--workdir={run}")
    assert "| network |" in launch(commands()[4].replace("runs/quickstart", str(run)), tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        cv2.imwrite(str(photos / f"{k}.jpg"), rng.integers(0, 256, (30, 40, 3), np.uint8))
    command = commands()[2].replace("/path/to/photos", str(photos))
    assert "| network |" in launch(command, tmp_path, *small, f"--workdir={tmp_path / 'folder'}")


def test_sweep_command(tmp_path):
    """Of the sentence: all its runs, each with a directory of its own; each config is tried in test_sweep_plan.py."""
    command = re.search(r"`(\./launch\.sh sweep [^`]+)`", README)[1]
    printed = launch(command, tmp_path, "--dry-run", f"--workdir={tmp_path}/ablation")
    workdirs = re.findall(r"--workdir=(\S+)", printed)
    assert len(set(workdirs)) == len(workdirs) == 63 and not list(tmp_path.iterdir())


def test_inpaint_command(place):
    """On files and a run that lie elsewhere: paths are relative to the project."""
    cv2.imwrite(str(place / "photo.jpg"), np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8))
    mask = np.zeros((30, 41), np.uint8)
    mask[10:15, 20:30] = 255
    cv2.imwrite(str(place / "mask.png"), mask)
    command = re.sub(r"=(runs|photo|mask|filled)", rf"={place}/\1", commands()[1])
    assert "41x30, hole 4.07%" in launch(command, place)
    filled, photo = (np.asarray(PIL.Image.open(place / name)) for name in ("filled.png", "photo.jpg"))
    np.testing.assert_array_equal(filled[mask == 0], photo[mask == 0])


def test_mask_command(tmp_path):
    """The one command that stands inside a sentence."""
    command = re.search(r"`(\./launch\.sh masks [^`]+)`", README)[1]
    out = tmp_path / "masks.png"
    assert "24 masks, hole area 1" in launch(command.replace("masks.png", str(out)), tmp_path)
    assert cv2.imread(str(out)) is not None


def test_test_command(tmp_path):
    """Only that it reaches pytest: this is a test itself."""
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
