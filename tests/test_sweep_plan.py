"""Tests of plans: what a sweep trains, and what is refused before anything runs."""

import pathlib
import re
import sys

import pytest
from absl import flags
from ml_collections import config_flags

import runs
import sweeps
from experiments import ablation
from pconv_jax.sweeping import plan
from pconv_jax.training import validation

SHIPPED = plan.File(
    "experiments/ablation.py",
    ablation.get_config,
    ablation.get_variants,
    ablation.SEEDS,
    ablation.SMOKE,
    ablation.SMOKE_SEEDS,
)


def parsed(arguments, monkeypatch):
    """Returns the config that `pconv_jax.main` would get."""
    flag_values = flags.FlagValues()
    monkeypatch.setattr(sys, "argv", ["main", *arguments])  # where ml_collections looks for overrides
    config_flags.DEFINE_config_file("config", None, flag_values=flag_values)
    flags.DEFINE_string("workdir", None, "", flag_values)
    flag_values(["main", *arguments])
    return flag_values.config, flag_values.workdir


def test_runs_of_a_sweep(tmp_path):
    """The baseline comes first, a seed's variants come before the next seed, and each run has its own directory."""
    sweep = sweeps.tiny(tmp_path)
    expected = [(variant, seed) for seed in (0, 1) for variant in ("baseline", "zero", "no_hole")]
    assert [(run.variant, run.seed) for run in sweep.runs] == expected
    assert [run.workdir for run in sweep.runs[:2]] == [f"{tmp_path}/baseline/seed_0", f"{tmp_path}/zero/seed_0"]
    assert sweep.groups == {"convolution": ["zero"], "loss": ["no_hole"]}
    kinds = [(run.config.model.kind, run.config.loss.weights.hole) for run in sweep.runs[:3]]
    assert kinds == [("partial", 6.0), ("zero", 6.0), ("partial", 0.0)]
    assert {run.config.eval.seed for run in sweep.runs} == {0} and [r.config.seed for r in sweep.runs[::3]] == [0, 1]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize("smoke", [False, True])
def test_commands_give_the_configs_that_were_checked(smoke, monkeypatch):
    """The main command parses the arguments of the shipped sweep into the planned configs."""
    overrides = {"data.crop_scale": (0.5, 0.75), "data.source": "folder", "data.path": "/a b/c", "data.flip": False}
    sweep = plan.make(SHIPPED, overrides, smoke=smoke)
    assert len(sweep.runs) == len(sweep.variants) * (2 if smoke else 3)
    for run in sweep.runs[: len(sweep.variants)] + sweep.runs[-1:]:
        config, workdir = parsed(run.arguments, monkeypatch)
        assert validation.flatten(config) == validation.flatten(run.config) and workdir == run.workdir
        assert config.data.path == "/a b/c" and config.data.size == (32 if smoke else 64)


def test_the_shipped_sweep():
    """Each variant of the shipped ablation changes what its name states and nothing else."""
    sweep = plan.make(SHIPPED, {})
    expected = {
        "zero": {"model.kind": "zero"},
        "mask_channel": {"model.kind": "mask_channel"},
        "gated": {"model.kind": "gated"},
        "mask_keep": {"model.mask_update": "keep"},
        "mask_vanish": {"model.mask_update": "vanish"},
        "no_valid": {"loss.weights.valid": 0.0},
        "no_hole": {"loss.weights.hole": 0.0},
        "no_tv": {"loss.weights.tv": 0.0},
        "norm_masked": {"model.norm": "masked_batch"},
        "norm_group": {"model.norm": "group"},
        "norm_none": {"model.norm": "none"},
        "one_phase": {"train.steps": 2000, "finetune.steps": 0},
        "unfrozen": {"finetune.freeze_statistics": False, "finetune.freeze_affine": False},
        "on_shapes": {"masks.kind": "shapes"},
        "on_boxes": {"masks.kind": "boxes"},
        "depth_less": {"model.depth": 3},
        "depth_more": {"model.depth": 5},
        "width_half": {"model.width": 16, "model.max_width": 64},
        "width_double": {"model.width": 64, "model.max_width": 256},
        "no_center": {"model.center": False},
    }
    assert sweep.changes == {"baseline": {}, **expected}
    assert sweep.groups["convolution"] == ["zero", "mask_channel", "gated"]
    base = validation.flatten(sweep.runs[0].config)
    for run in sweep.runs[1:21]:
        current = validation.flatten(run.config)
        assert {key: current[key] for key in current if current[key] != base[key]} == {
            "name": run.variant,
            **expected[run.variant],
        }


def test_terms_of_vgg16_are_left_out_without_its_weights():
    """With VGG16's weights, the feature terms are variants."""
    terms = {"no_perceptual", "no_style_out", "no_style_comp"}
    without, with_weights = plan.make(SHIPPED, {}), plan.make(SHIPPED, {"loss.vgg16_weights": "vgg16.npz"})
    assert terms <= without.left_out.keys() and "needs loss.vgg16_weights" in without.left_out["no_perceptual"]
    assert terms <= with_weights.changes.keys() and not terms & with_weights.left_out.keys()


@pytest.mark.parametrize(
    ("overrides", "left_out", "variants"),
    [
        ({"model.kind": "gated"}, {"gated", "mask_keep", "norm_masked"}, {"partial", "zero"}),
        ({"model.norm": "none"}, {"norm_none"}, {"norm_batch", "norm_group"}),
        ({"masks.kind": "folder", "masks.path": "m"}, {"partial"}, {"on_strokes", "on_shapes"}),
        ({"data.size": 16}, {"depth_more"}, {"depth_less"}),
        ({"finetune.steps": 0}, {"one_phase"}, {"zero"}),
    ],
)
def test_another_baseline(overrides, left_out, variants):
    """With another baseline, variants that equal it or cannot work are left out, and others appear."""
    sweep = plan.make(SHIPPED, overrides)
    assert left_out <= sweep.left_out.keys() and variants <= sweep.changes.keys()


def test_choosing(tmp_path):
    """Variants and seeds can be chosen, and the baseline is always included."""
    options = {"variants": ["no_hole"], "seeds": [7], "directory": str(tmp_path)}
    sweep = plan.make(sweeps.file(), {"train.steps": 8}, **options)
    assert [run.name for run in sweep.runs] == ["baseline seed 7", "no_hole seed 7"]
    assert {run.steps for run in sweep.runs} == {8}


def test_a_list_is_as_good_as_a_tuple():
    """The config that is checked is the one that the command line yields, also for lists."""
    sweep = plan.make(sweeps.file({"a": {"x": {"model.kernels": [5, 3]}}}), {})
    assert sweep.runs[1].config.model.kernels == (5, 3)


def test_smoke_has_a_directory_of_its_own():
    """A smoke run takes the file's overrides, and those of the command line override them."""
    file = sweeps.file(smoke={"train.steps": 6, "optim.lr": 0.5}, smoke_seeds=(3,))
    sweep = plan.make(file, {"optim.lr": 0.25}, smoke=True)
    assert sweep.directory == "runs/tiny_smoke" and [run.seed for run in sweep.runs] == [3, 3, 3]
    assert {(run.config.train.steps, run.config.optim.lr) for run in sweep.runs} == {(6, 0.25)}
    assert plan.make(file, {}).directory == "runs/tiny"
    assert {run.seed for run in plan.make(file, {}, smoke=True, seeds=[5]).runs} == {5}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([1], r"get_variants\(\) needs to give \{group: \{name: \{key: value\}\}\}"),
        ({"a": {"model.kind": "zero"}}, "variant 'model.kind' needs a name of letters"),
        ({}, "gives no variant"),
        ({"a": {}}, "gives no variant"),
        ({"a": {"x": {"model.kidn": "zero"}}}, "variant x: unknown key model.kidn: did you mean model.kind"),
        ({"a": {"x": {"model.kind": "magic"}}}, "variant x: model.kind is 'magic'; needs one of partial, zero"),
        ({"a": {"x": {"model.depth": 5}}}, "variant x: data.size: image is 16x16; needs multiples of 32"),
        ({"a": {"x": {"model.kind": "zero"}}, "b": {"x": {"model.width": 9}}}, "variant x is there 2 times"),
        ({"a": {"x": {"model.width": 9}, "y": {"model.width": 9}}}, "variant y: the same as x"),
        ({"a": {"baseline": {"model.width": 9}}}, "variant 'baseline' needs a name of letters, .* other than baseline"),
        ({"a": {"../x": {"model.width": 9}}}, r"variant '../x' needs a name"),
        ({"a": {"x": {"eval.masks.kind": "boxes"}}}, "variant x: eval.masks.kind is not for variants: .* same inputs"),
        ({"a": {"x": {"data.size": 32}}}, "data.size is not for variants: variants are compared on the same inputs"),
        ({"a": {"x": {"seed": 1}}}, "variant x: seed is not for variants: the sweep sets it"),
        ({"a": {"x": 3}}, "variant x is 3; needs overrides"),
        ({"a": {"x": {}}}, r"no variant is left beside the baseline \(x: the same as the baseline\)"),
        ({"a": {"x": "a reason"}}, r"no variant is left beside the baseline \(x: a reason\)"),
    ],
)
def test_wrong_variants(variants, message):
    """Wrong variants are reported by name before anything runs."""
    with pytest.raises(ValueError, match=message):
        plan.make(sweeps.file(variants), {})


def test_no_variant_changes_what_it_is_scored_on():
    """Of the keys for data, variants may change only those of training; a new key must be sorted into a group."""
    of_training = {"train_split", "crop_scale", "flip", "rotate", "permute_channels", "cache", "threads", "workers"}
    keys = [key for key in validation.RULES if key.startswith(("data.", "eval."))] + ["model.channels"]
    values = validation.flatten(runs.tiny())
    variants = {"a": {key.replace(".", "_"): {key: values[key]} for key in keys}}
    with pytest.raises(ValueError) as printed:
        plan.make(sweeps.file(variants), {})
    refused = {
        key for key in keys if f"{key} is not for variants: variants are compared on the same" in str(printed.value)
    }
    assert set(keys) - refused == {f"data.{key}" for key in of_training} and len(keys) > 20


def test_all_mistakes_are_reported_at_once():
    variants = {"a": {"x": {"model.depth": 0}, "y": {"optim.lr": -1.0}}}
    with pytest.raises(ValueError, match=r"(?s)seed -1; needs.*seed 2 is there 2 times.*variant x: .*variant y: "):
        plan.make(sweeps.file(variants), {}, seeds=[-1, 2, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ["zer"]}, "the variant zer is unknown; needs some of zero, no_hole"),
        ({"variants": ["baseline"]}, "no variant is left beside the baseline"),
        ({"seeds": ["one"]}, "seed 'one'; needs an integer"),
    ],
)
def test_wrong_choices(options, message):
    with pytest.raises(ValueError, match=message):
        plan.make(sweeps.file(), {}, **options)


def test_a_wrong_baseline():
    with pytest.raises(ValueError, match=r"the baseline of tiny_sweep.py does not work:\n  train.steps and finetune"):
        plan.make(sweeps.file(), {"train.steps": 0})
    with pytest.raises(ValueError, match="no seeds"):
        plan.make(sweeps.file(seeds=()), {})


def test_the_example_of_the_documentation():
    """The example of a sweep file in docs/sweeps.md works."""
    text = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "sweeps.md").read_text()
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    file = plan.File("mine.py", names["get_config"], names["get_variants"], names["SEEDS"])
    sweep = plan.make(file, {"data.path": "photos"})
    assert sweep.directory == "runs/rates" and sweep.variants == ["baseline", "lr_high", "lr_low"]
