"""Tests of preparing TFDS datasets: without TensorFlow, after kills, and with instructions where a file is missing."""

import io
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
import requests

import tiny_tfds
from pconv_jax.data import tfds_source
from pconv_jax.tools import prepare_tfds

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULE = "pconv_jax.tools.prepare_tfds"
ARCHIVE = "img_align_celeba.zip"


@pytest.fixture
def raw(tmp_path):
    """Returns a directory with the five files of a small CelebA."""
    tiny_tfds.celeba(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def offline(monkeypatch):
    """Refuses all connections of this process, and returns the list of the hosts that were tried."""
    tried = []

    def refuse(address, *_, **__):
        tried.append(address[0])
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tried


def tool(*arguments):
    """Runs the tool without a network and returns `(exit code, output)`."""
    closed = "http://127.0.0.1:9"
    environment = {**os.environ, "HTTP_PROXY": closed, "HTTPS_PROXY": closed, "no_proxy": "", "NO_PROXY": ""}
    command = [sys.executable, "-m", MODULE, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_offline_says_what_to_download(tmp_path):
    """The message has names, sizes, addresses and the directory of the files, and the command to run then."""
    code, output = tool("celeb_a", f"--data_dir={tmp_path / 'data'}")
    assert code not in (0, None) and "Traceback" not in output
    assert "error: celeb_a cannot be prepared: img_align_celeba.zip is missing, and drive.google.com does not" in output
    assert f"Put these files into {tmp_path}/data/downloads/manual:" in output
    assert "img_align_celeba.zip              1,443,490,838 bytes  missing  https://drive.google.com/uc?" in output
    for name in ("list_eval_partition.txt", "list_attr_celeba.txt", "list_landmarks_align_celeba.txt"):
        assert f"  {name} " in output
    assert "identity_CelebA.txt                   3,424,458 bytes" in output
    assert (
        f"  python -m {MODULE} celeb_a --manual_dir={tmp_path}/data/downloads/manual --data_dir={tmp_path}/data\n"
        in output
    )
    assert not list(tmp_path.iterdir())


def test_wrong_file_is_named(tmp_path, raw):
    """A file of the wrong size is named with its size before anything is read or downloaded."""
    code, output = tool("celeb_a", f"--manual_dir={raw}", f"--data_dir={tmp_path / 'data'}")
    assert code not in (0, None) and "Traceback" not in output
    size = (raw / "list_eval_partition.txt").stat().st_size
    assert f"{raw}/list_eval_partition.txt has {size:,} bytes; the original has 2,836,386\n" in output
    assert f"{ARCHIVE}              1,443,490,838 bytes  has " in output
    assert "They must be the originals, byte for byte." in output and f"--manual_dir={raw} " in output
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs the name of one dataset, e.g. celeb_a"),
        (["celeba"], "error: TFDS has no dataset celeba: did you mean celeb_a?"),
        (
            ["imagenet2012", "--data_dir={}"],
            "error: imagenet2012 cannot be prepared: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar cannot be "
            "downloaded by a program\n\nmanual_dir should contain two files: ILSVRC2012_img_train.tar and\n",
        ),
        (
            ["places365_small", "--data_dir={}"],
            "error: places365_small cannot be prepared: train_256_places365standard.tar is missing, and data.csail",
        ),
    ],
)
def test_command_line_mistakes_have_no_traceback(tmp_path, arguments, message):
    """Mistakes are reported without a traceback; the instructions for a dataset come from its builder."""
    code, output = tool(*(argument.format(tmp_path) for argument in arguments))
    assert code not in (0, None) and "Traceback" not in output
    assert message in output
    assert not list(tmp_path.iterdir())


def test_files_at_hand_need_no_network(tmp_path, raw, offline):
    """With all files the dataset is prepared without a network, and the second run does nothing."""
    assert tiny_tfds.prepare("celeb_a", raw, tmp_path / "data")
    assert not offline
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not tiny_tfds.prepare("celeb_a", raw, tmp_path / "data")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_one_missing_file_needs_the_network(tmp_path, raw, offline):
    """If one file is missing, only that file is reported as missing."""
    (raw / "identity_CelebA.txt").unlink()
    with pytest.raises(ValueError, match=r"identity_CelebA.txt is missing, and drive\.google\.com does") as caught:
        tiny_tfds.prepare("celeb_a", raw, tmp_path / "data")
    assert offline == ["drive.google.com"]
    lines = [line.split() for line in str(caught.value).splitlines() if " bytes " in line]
    assert [line[0] for line in lines if "missing" in line] == ["identity_CelebA.txt"]
    assert len([line for line in lines if "there" in line]) == 4


def test_same_size_and_other_bytes(tmp_path, raw, offline):
    """A file of the right size with other bytes is found by TFDS's checksum, and the error has the instructions."""
    with tiny_tfds.originals("celeb_a", raw):
        path = raw / "identity_CelebA.txt"
        path.write_bytes(path.read_bytes()[::-1])
        with pytest.raises(ValueError, match=r"has wrong checksum\n[\s\S]*Put these files into") as caught:
            prepare_tfds.Preparation("celeb_a", str(raw), str(tmp_path / "data")).run()
    assert "raw/identity_CelebA.txt" in str(caught.value)
    assert not list((tmp_path / "data").glob("celeb_a/*"))


class Drive:
    """Google Drive's answers to TFDS: a page without a form, these bytes as the file, or an exception."""

    def __init__(self, answer):
        self.answer = answer

    def get(self, url, **_):
        if isinstance(self.answer, Exception):
            raise self.answer
        response = requests.Response()
        response.status_code, response.url, response.raw = 200, url, io.BytesIO(self.answer or b"<html>later</html>")
        if self.answer:
            response.headers["Content-Disposition"] = 'attachment; filename="identity_CelebA.txt"'
        return response


def serve(monkeypatch, answer):
    monkeypatch.setattr(requests.Session, "get", lambda _, url, **options: Drive(answer).get(url, **options))
    monkeypatch.setattr(prepare_tfds, "reachable", lambda _: True)


def test_downloads_are_kept(tmp_path, raw, monkeypatch, request):
    """If the dataset has to be made again, a file that was downloaded is used without a network."""
    with tiny_tfds.originals("celeb_a", raw), monkeypatch.context() as online:
        serve(online, (raw / "identity_CelebA.txt").read_bytes())
        (raw / "identity_CelebA.txt").unlink()
        assert prepare_tfds.Preparation("celeb_a", str(raw), str(tmp_path / "data")).run()
        shutil.rmtree(tmp_path / "data" / "celeb_a")
        online.undo()
        tried = request.getfixturevalue("offline")
        assert prepare_tfds.Preparation("celeb_a", str(raw), str(tmp_path / "data")).run()
    assert not tried


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "Google Drive refuses the download for now, .*Failed to obtain confirmation link for GDrive URL"),
        (b"other bytes", "Artifact https://drive.google.com/.*, has wrong checksum\n"),
        (requests.exceptions.ConnectionError("Max retries exceeded"), "Max retries exceeded"),
    ],
)
def test_google_drive_refuses(tmp_path, raw, monkeypatch, answer, message):
    """If Google Drive answers with a page or not at all, the error has the instructions; later the file is there."""
    serve(monkeypatch, answer)
    with tiny_tfds.originals("celeb_a", raw):
        preparation = prepare_tfds.Preparation("celeb_a", str(raw), str(tmp_path / "data"))
        kept = (raw / "identity_CelebA.txt").rename(tmp_path / "kept")
        with pytest.raises(
            ValueError, match=rf"celeb_a cannot be prepared: {message}[\s\S]*identity_CelebA.txt .*missing"
        ):
            preparation.run()
        assert list((tmp_path / "data").glob("downloads/celeb_a/*.tmp.*"))
        kept.rename(raw / "identity_CelebA.txt")
        assert prepare_tfds.Preparation("celeb_a", str(raw), str(tmp_path / "data")).run()
    assert not list((tmp_path / "data").glob("downloads/celeb_a/*.tmp.*"))


STOPPING = """
import sys, time
from tensorflow_datasets.core import writer
import tiny_tfds
write = writer.Writer.finalize
def stop(self):
    print("writing", flush=True)
    time.sleep(60)
writer.Writer.finalize = stop
tiny_tfds.prepare("celeb_a", sys.argv[1], sys.argv[2])
"""


def test_killed_and_started_again(tmp_path, raw, capsys):
    """After SIGKILL there is no dataset, and the same command completes it; a second process is refused meanwhile."""
    data = tmp_path / "data"
    command = [sys.executable, "-c", STOPPING, str(raw), str(data)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.stdout.readline() != b"writing\n":
            assert process.poll() is None
        with pytest.raises(ValueError, match=r"another process is preparing celeb_a in .*downloads: wait for it"):
            tiny_tfds.prepare("celeb_a", raw, data)
        process.send_signal(signal.SIGKILL)
    (left,) = data.glob("celeb_a/incomplete.*")
    (data / "downloads" / "extracted" / "incomplete.of_another").mkdir()
    assert tiny_tfds.prepare("celeb_a", raw, data)
    assert f"removing {left}, left by a preparation that was killed" in capsys.readouterr().out
    assert [path.name for path in (data / "celeb_a").iterdir()] == ["2.1.0"]
    assert (data / "downloads" / "extracted" / "incomplete.of_another").exists()
    source, _ = tfds_source.train_and_evaluation("celeb_a", ("train", "test"), directory=str(data))
    assert len(source) == tiny_tfds.CELEBA["train"]


def test_a_directory_that_is_no_dataset(tmp_path, raw):
    """An incomplete directory, which TFDS would take for the dataset, is refused."""
    (tmp_path / "data" / "celeb_a" / "2.1.0").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"celeb_a/2.1.0 holds an incomplete dataset: remove it, and run the command again"
    ):
        tiny_tfds.prepare("celeb_a", raw, tmp_path / "data")


def test_reachable(monkeypatch):
    """It is tested with a host that listens, one that refuses, a proxy, and a name server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert prepare_tfds.reachable(f"http://127.0.0.1:{port}/file.zip")
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
        assert prepare_tfds.reachable("https://nowhere.invalid/file.zip")
    assert not prepare_tfds.reachable(f"http://127.0.0.1:{port}/file.zip")
    monkeypatch.setattr(prepare_tfds, "_SECONDS", 0.5)
    over, ended = threading.Event(), []

    def hang(*_, **__):  # as a look-up of a name may; the thread outlives its test if nothing ends it
        over.wait(60)
        ended.append(True)
        raise OSError("looked up too long")

    monkeypatch.setattr(socket, "create_connection", hang)
    assert not prepare_tfds.reachable("https://nowhere.invalid/file.zip")
    assert not ended, "it was waited for"
    over.set()
