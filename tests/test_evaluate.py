"""Tests of the evaluate command: what it scores, writes and refuses."""

import json
import pathlib
import re
import shutil

import cv2
import flax.linen as nn
import jax
import numpy as np
import pytest
from absl import flags

import networks
import plain_networks
import runs
from pconv_jax import errors, evaluate, inpaint
from pconv_jax.evaluation import perceptual, scores
from pconv_jax.inpainting import weights_file
from pconv_jax.models import inception, lpips

EXPERIMENT = pathlib.Path(__file__).with_name("tiny_experiment.py")
READS_EXPERIMENTS = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections


def command(*words, module=evaluate):
    """Runs the command line in this process."""
    flag_values = flags.FlagValues()
    module.define_flags(flag_values)
    flag_values(["evaluate", *map(str, words)])
    module.main(flag_values)


def save(directory, scale=1.0, **changes):
    """Makes a run without training; another `scale` makes another network."""
    config = runs.tiny(**changes)
    state = networks.random_state(config)
    state = state.replace(params=jax.tree.map(lambda x: scale * x, state.params))
    return networks.save_run(directory, config, [(state, 20.0)])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a directory with two runs on the same inputs and their manifest."""
    directory = tmp_path_factory.mktemp("place")
    deep = {"model.depth": 3}  # sees all of every hole, which `inpaint` treats apart
    save(directory / "a", **deep)
    save(directory / "b", 0.5, **deep)
    command(f"--run={directory / 'a'}", f"--write_manifest={directory / 'inputs'}")
    assert not (directory / "a" / "eval").exists()
    return directory


@pytest.fixture(scope="module")
def compared(place):
    """Returns the directory with the scores of both runs."""
    command(f"--run={place / 'a'}", f"--compare={place / 'b'}", f"--out={place / 'scores'}")
    return place / "scores"


def records(path, method=scores.NETWORK):
    result = [r for r in json.loads(path.read_text())["records"] if r["method"] == method]
    assert result
    return [{key: value for key, value in record.items() if key != "method"} for record in result]


def test_all_methods_are_in_all_files(place, compared):
    """All files hold the networks and all baselines, with tables, pictures and provenance."""
    assert sorted(path.name for path in compared.iterdir()) == [
        "last.csv",
        "last.json",
        "last.md",
        "last.png",
        "last_compared.csv",
        "last_errors.png",
        "last_examples.csv",
        "last_psnr.png",
    ]
    content = json.loads((compared / "last.json").read_text())
    methods = ["network", str(place / "b"), "mean fill", "Telea", "Navier-Stokes", "biharmonic"]
    assert list(dict.fromkeys(record["method"] for record in content["records"])) == methods
    assert [row["other"] for row in content["compared"][::35]] == methods[1:]
    assert len(content["records"]) == 60 and content["inputs"].startswith("10 examples, sha256 ")
    assert content["networks"]["network"]["parameters_sha256"] == content["parameters_sha256"]
    assert content["networks"][str(place / "b")]["parameters_sha256"] != content["parameters_sha256"]
    assert (content["step"], content["config"]["name"]) == (0, "tiny")
    text = (compared / "last.md").read_text()
    assert text.startswith("# tiny at step 0, 10 composites\n") and "Wilcoxon" in text and "Places2" not in text
    for picture in compared.glob("*.png"):
        assert min(cv2.imread(str(picture)).shape[:2]) > 100


def test_another_run_is_scored_as_by_itself(place, compared):
    """A run under --compare has the same scores as by itself."""
    command(f"--run={place / 'b'}", "--baselines=", f"--out={place / 'alone'}")
    assert records(place / "alone" / "last.json") == records(compared / "last.json", str(place / "b"))
    assert not (place / "alone" / "last_compared.csv").exists()


def test_two_evaluations_are_identical(place, compared, tmp_path):
    """Two evaluations write the same bytes in every file."""
    command(f"--run={place / 'a'}", f"--compare={place / 'b'}", f"--out={tmp_path}")
    for path in compared.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_manifest_takes_the_place_of_the_runs_own_inputs(place, compared):
    """A manifest gives the same records as the photographs, in files of another name."""
    command(f"--run={place / 'a'}", f"--manifest={place / 'inputs'}", f"--out={place / 'again'}", "--baselines=Telea")
    assert records(place / "again" / "last_inputs.json") == records(compared / "last.json")
    assert records(place / "again" / "last_inputs.json", "Telea") == records(compared / "last.json", "Telea")
    both = [json.loads(path.read_text()) for path in (place / "again" / "last_inputs.json", compared / "last.json")]
    assert both[0]["inputs"] == both[1]["inputs"]


def test_another_programs_results(place, compared, capsys):
    """Results of `inpaint` for a manifest, as of any program, have the network's scores."""
    images, masks, out = (place / "inputs" / "images", place / "inputs" / "masks", place / "filled")
    words = [f"--image={images}", f"--mask={masks}", "--polarity=white_hole", f"--out={out}"]
    command(f"--run={place / 'a'}", *words, module=inpaint)
    words = [f"--manifest={place / 'inputs'}", f"--predictions={out}", f"--out={place / 'theirs'}"]
    command(*words, "--baselines=mean fill", "--references")
    result, expected = records(place / "theirs" / "inputs.json", str(out)), records(compared / "last.json")
    for one, other in zip(result, expected, strict=True):
        assert {key: one[key] for key in scores.ABOUT} == {key: other[key] for key in scores.ABOUT}
        for metric in set(scores.METRICS) - {"raw_psnr"}:  # what was written has the valid pixels already
            assert one[metric] == pytest.approx(other[metric], rel=1e-3), metric
    text = (place / "theirs" / "inputs.md").read_text()
    assert text.startswith("# inputs, 10 composites\n") and "| Places2, 512 px, holes off the border |" in text
    assert "Places2" in capsys.readouterr().out


class Colours(nn.Module):
    """A stand-in for Inception with three features instead of 2048."""

    def __call__(self, image):
        return image.mean(axis=(1, 2))


def test_lpips_and_fid_by_files_of_weights(tmp_path, capsys, monkeypatch):
    """LPIPS and FID are in every file, the same each time, with a remark on the reliability of FID."""
    np.savez(tmp_path / "lpips.npz", network="alex", **plain_networks.draw(lpips.expected("alex")))
    (tmp_path / "inception.npz").write_bytes(b"weights")
    monkeypatch.setattr(inception, "load", lambda path: (Colours(), {}))
    run = save(tmp_path / "run", **{"data.size": 32, "eval.examples": 6})
    words = [f"--run={run}", "--baselines=mean fill,Telea", f"--lpips_weights={tmp_path / 'lpips.npz'}"]
    for out in ("both", "again"):
        command(*words, f"--fid_weights={tmp_path / 'inception.npz'}", f"--out={tmp_path / out}")
    for path in (tmp_path / "both").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    content = json.loads((tmp_path / "both" / "last.json").read_text())
    assert all(record["lpips"] > 0 for record in content["records"])
    overall = {row["method"]: row for row in content["rows"] if row["bucket"] == row["border"] == "all"}
    assert list(overall) == ["network", "mean fill", "Telea"] and all(row["fid"] > 0 for row in overall.values())
    assert overall["network"]["fid"] > overall["Telea"]["fid"]  # without training
    assert {row["fid"] for row in content["rows"] if row["bucket"] != "all"} == {None}
    assert content["lpips"]["network"] == "alex" and len(content["fid"]["weights_sha256"]) == 64
    text = capsys.readouterr().out
    assert "Left out" not in text and "| FID (lower) | all n=6 |" in text and "LPIPS (lower): network minus" in text
    assert "Of fewer than 2049 images it is biased upwards" in text
    assert "biased upwards" in (tmp_path / "both" / "last.md").read_text()


def test_what_is_left_out_is_reported(place, compared):
    """Without weights there are no columns, and the file names the flags that would add them."""
    assert perceptual.notes([perceptual.LPIPS], 6)[0].startswith("Left out for want of weights: FID: --fid_weights=")
    assert len(perceptual.notes([perceptual.LPIPS, perceptual.FID], 3000)) == 1
    assert "biased" not in perceptual.notes([perceptual.FID], 2049)[1]
    text = (compared / "last.md").read_text()
    assert "Left out for want of weights: LPIPS: --lpips_weights=FILE, made by python -m pconv_jax.tools." in text
    assert "LPIPS (lower)" not in text and "lpips" not in (compared / "last.csv").read_text()


def test_wrong_weights_are_refused_before_anything_is_scored(place, tmp_path):
    """A missing file, a file of another tool, and images that are too small are refused before scoring."""
    words = [f"--run={place / 'a'}", f"--out={tmp_path / 'out'}"]
    with pytest.raises(errors.UserError, match=r"no LPIPS weights at .*prepare_lpips"):
        command(*words, f"--lpips_weights={tmp_path / 'nothing.npz'}")
    np.savez(tmp_path / "lpips.npz", network="alex", **plain_networks.draw(lpips.expected("alex")))
    with pytest.raises(ValueError, match="images are 16x16; LPIPS with alex needs 31x31 or more"):
        command(*words, f"--lpips_weights={tmp_path / 'lpips.npz'}")
    with pytest.raises(ValueError, match=r"lpips.npz lacks Conv2d_1a_3x3/"):
        command(*words, f"--fid_weights={tmp_path / 'lpips.npz'}")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_found_before_scoring(place, tmp_path, monkeypatch):
    """A file in the place of --out is an error before anything is scored."""
    monkeypatch.setattr(scores, "inpainter", lambda *_: lambda *_: pytest.fail("scored"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        command(f"--run={place / 'a'}", f"--out={tmp_path / 'file'}")


def test_runs_on_other_inputs_are_not_compared(place, tmp_path):
    """Runs on other inputs are refused with what differs, and may be compared on a manifest."""
    other = save(tmp_path / "other", **{"eval.seed": 1, "eval.examples": 6})
    with pytest.raises(ValueError, match=r"other inputs \(eval.examples: 10 in .*a, 6 in .*; eval.seed: 0 in"):
        command(f"--run={place / 'a'}", f"--compare={other}", f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
    words = [f"--run={place / 'a'}", f"--compare={other}", f"--manifest={place / 'inputs'}", "--baselines="]
    command(*words, f"--out={tmp_path / 'out'}")
    assert len(records(tmp_path / "out" / "last_inputs.json", other)) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.channels": 1}, r"is a network for 1 channels and .*inputs has 3"),
        ({"data.size": 32, "model.depth": 5}, r"inputs does not fit .*: image is 16x16; needs multiples of 32"),
    ],
)
def test_a_manifest_that_a_network_does_not_take(place, tmp_path, changes, message):
    other = save(tmp_path / "other", **changes)
    with pytest.raises(ValueError, match=message):
        command(f"--run={other}", f"--manifest={place / 'inputs'}")


def test_other_evaluation_images_than_the_run_had_are_refused(place, tmp_path):
    """Other evaluation images than the run recorded are refused, since it may have been trained on them."""
    shutil.copytree(place / "a", tmp_path / "a")
    (tmp_path / "a" / "data.json").write_text(json.dumps({"evaluation": "3 files, sha256 0"}))
    with pytest.raises(ValueError, match=r"other evaluation images \(3 files, sha256 0 then, 4 files, .* now\)"):
        command(f"--run={tmp_path / 'a'}")


def test_results_that_do_not_match_are_refused_before_anything_is_scored(place, tmp_path):
    """Results for another manifest of the same images are refused by their names."""
    other = save(tmp_path / "other", **{"eval.seed": 1})
    command(f"--run={other}", f"--write_manifest={tmp_path / 'inputs'}")
    words = [f"--predictions={tmp_path / 'inputs' / 'images'}", f"--manifest={place / 'inputs'}"]
    with pytest.raises(ValueError, match=r"10 missing \(.*and 5 more\); 10 that no input has the name of"):
        command(*words, f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no inputs: give --run=DIR, or --config=FILE, or --manifest=DIR"),
        (
            [f"--config={EXPERIMENT}", "--run=a"],
            "--config decides the inputs, and so do --run and --manifest",
        ),
        (["--manifest=m", "--ensemble=0"], "--ensemble=0; needs numbers from 1 to 8, e.g. 1,8"),
        ([f"--config={EXPERIMENT}", "--out=o", "--weights=w"], "no weights at w: give a file"),
        (["--run=a", "--baselines=telea"], "--baselines=telea is unknown; needs some of mean fill, Telea"),
        (["--manifest=m", "--compare=a"], "--compare needs --run=DIR"),
        (["--manifest=m", "--write_manifest=n"], "--write_manifest needs --run=DIR or --config=FILE"),
        (["--run=a", "--predictions=p"], "--predictions needs --manifest"),
        (["--run=a", "--manifest=m", "--write_manifest=n"], "leave --manifest out"),
        (["--manifest=m", "--predictions=p"], "--out=DIR is missing"),
        (["--run=a", "--compare=b,b"], "name a folder twice: a, b, b"),
        (["--run=a"], "a holds no run"),
        (["--manifest=m", "--out=o", "--predictions=p"], r"m/manifest.json is missing"),
    ],
)
@READS_EXPERIMENTS
def test_wrong_words(words, message, tmp_path, monkeypatch):
    """Wrong flags are refused with one line before anything is read or written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        command(*words)
    assert not list(pathlib.Path().iterdir())


def test_nothing_to_score(place, tmp_path):
    with pytest.raises(ValueError, match="nothing to score"):
        command(f"--manifest={place / 'inputs'}", f"--out={tmp_path}", "--baselines=")


@READS_EXPERIMENTS
def test_weights_on_the_inputs_of_an_experiment_file(place, tmp_path, capsys):
    """Without a run: the file's network scores as its run does on the same inputs; ensembles are rows of their own."""
    weights = networks.export(str(place / "a"), str(tmp_path / "a.safetensors"))
    words = [f"--config={EXPERIMENT}", f"--weights={weights}", "--ensemble=1,2"]
    command(*words, "--baselines=Telea", f"--out={tmp_path / 'scores'}")
    content = json.loads((tmp_path / "scores" / "tiny.json").read_text())
    assert content["variables_sha256"] == weights_file.sha256(weights_file.read(weights).variables)
    ensemble = "a.safetensors, mean of 2"
    assert list(dict.fromkeys(record["method"] for record in content["records"])) == ["network", ensemble, "Telea"]
    command(f"--run={place / 'a'}", "--baselines=", f"--out={tmp_path / 'run'}")
    rescored, expected = (records(tmp_path / path) for path in ("scores/tiny.json", "run/last.json"))
    for one, other in zip(rescored, expected, strict=True):
        assert {key: one[key] for key in scores.ABOUT} == {key: other[key] for key in scores.ABOUT}
        for metric in scores.METRICS:
            assert one[metric] == pytest.approx(other[metric], rel=0.02), metric
    assert (tmp_path / "scores" / "tiny.md").read_text().startswith("# tiny at step 0, 10 composites")
    printed = capsys.readouterr().out
    assert re.search(r"seconds per image: network [\d.e-]+, a.safetensors, mean of 2 [\d.e-]+, Telea", printed)


def test_a_checkpoint_is_chosen(tmp_path):
    """The last and the best checkpoint are different states and are written to different files."""
    config = runs.tiny()
    best = networks.random_state(config)
    last = best.replace(step=np.int32(4), params=jax.tree.map(lambda x: 0.5 * x, best.params))
    run = networks.save_run(tmp_path / "run", config, [(best, 30.0), (last, 20.0)])
    for which, step in (("best", 0), ("last", 4)):
        command(f"--run={run}", f"--checkpoint={which}", "--baselines=")
        assert json.loads((tmp_path / "run" / "eval" / f"{which}.json").read_text())["step"] == step
