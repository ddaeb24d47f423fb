"""Tests of configs: they are complete, no key is dead, and mistakes are reported before anything starts."""

import ast
import dataclasses
import functools
import importlib
import pathlib
import re

import ml_collections
import pytest

from experiments import default
from pconv_jax.data import masks
from pconv_jax.models import unet
from pconv_jax.ops import losses
from pconv_jax.training import build, example_settings, validation

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "pconv_jax"
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__")


def changed(**changes):
    """Returns the default config with other values of any type, `section__key=value`."""
    values = default.get_config().to_dict()
    for key, value in changes.items():
        *path, leaf = key.split("__")
        section = values
        for name in path:
            section = section.setdefault(name, {})
        section[leaf] = value
    return ml_collections.ConfigDict(values)


def removed(section, key):
    values = default.get_config().to_dict()
    del values[section][key]
    return ml_collections.ConfigDict(values)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_are_valid(name):
    """Every experiment file is valid, also with the overrides of each command in its docstring."""
    module = importlib.import_module(f"experiments.{name}")
    commands = [line for line in module.__doc__.splitlines() if f"--config=experiments/{name}.py" in line]
    assert commands
    for command in commands:
        config = module.get_config()
        for key, value in re.findall(r"--config\.([\w.]+)=([^\s\]]+)", command):
            *path, leaf = key.split(".")
            section = functools.reduce(getattr, path, config)
            section[leaf] = value if isinstance(section[leaf], str) else ast.literal_eval(value)
        validation.validate(config)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_have_the_keys_of_default(name):
    """Each experiment file has exactly the keys of default.py."""
    module = importlib.import_module(f"experiments.{name}")
    assert validation.flatten(module.get_config()).keys() == validation.flatten(default.get_config()).keys()


def test_experiments_have_their_own_run_directory():
    """Two experiments never share runs/<name>."""
    names = [importlib.import_module(f"experiments.{name}").get_config().name for name in EXPERIMENTS]
    assert len(set(names)) == len(names)


def test_every_key_has_a_rule():
    """The keys of default.py are the keys of the rules."""
    assert validation.flatten(default.get_config()).keys() == validation.RULES.keys()


def test_default_is_the_paper():
    """Network, loss weights, batch and learning rate are those of Liu et al. 2018, sections 3.2, 3.3 and 4.1."""
    config = default.get_config()
    assert config.loss.weights.to_dict() == {
        "valid": 1.0,
        "hole": 6.0,
        "perceptual": 0.05,
        "style_out": 120.0,
        "style_comp": 120.0,
        "tv": 0.1,
        "log_mse": 0.0,
    }
    assert config.finetune.lr == 5e-5  # tanimutomo fine-tunes at ten times that
    assert config.finetune.steps > 0 and config.finetune.freeze_statistics and config.finetune.freeze_affine
    assert config.loss.style_warmup_steps == 0 and config.train.accumulate == 1 and not config.model.remat
    assert config.optim.lr == 2e-4 and config.optim.schedule == "constant" and config.optim.warmup_steps == 0
    assert (config.optim.b1, config.optim.b2, config.optim.eps) == (0.9, 0.999, 1e-8)  # Adam's own defaults
    assert config.optim.clip_norm == 0 and config.optim.ema == 0
    assert config.train.batch_size == 6 and config.data.size == 512
    model = config.model
    assert (model.kind, model.norm, model.depth, model.channels) == ("partial", "batch", 8, 3)
    windows = [model.kernels[min(level, len(model.kernels) - 1)] for level in range(model.depth)]
    assert windows == [7, 5, 5, 3, 3, 3, 3, 3]
    widths = [min(model.width * 2**level, model.max_width) for level in range(model.depth)]
    assert widths == [64, 128, 256, 512, 512, 512, 512, 512]
    assert config.masks.area == (0.01, 0.6)


def reads(*paths):
    """Returns the config keys that files read.

    `keys` are the `section.key` of attribute chains, and `patterns` match keys under a computed name.
    validation.py and combinations.py of training/ are left out, because a key that is only checked is dead.
    """
    keys, patterns = set(), []
    for path in paths or PACKAGE.rglob("*.py"):
        if path in (PACKAGE / "training" / "validation.py", PACKAGE / "training" / "combinations.py"):
            continue
        tree = ast.parse(path.read_text())
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                keys.add(".".join(ast.unparse(node).split(".")[-2:]))
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.JoinedStr):  # config.train[f"{x}_every"]
                parts = node.slice.values
                name = "".join(re.escape(p.value) if isinstance(p, ast.Constant) else r"(\w+)" for p in parts)
                patterns.append((re.escape(ast.unparse(node.value).split(".")[-1]) + r"\." + name, texts))
    return keys, patterns


def is_read(key, keys, patterns):
    if "." not in key:
        return f"config.{key}" in keys
    last_two = ".".join(key.split(".")[-2:])
    if last_two in keys:
        return True
    matches = [(re.fullmatch(pattern, last_two), texts) for pattern, texts in patterns]
    return any(match and set(match.groups()) <= texts for match, texts in matches)


def test_every_key_is_read():
    """No key is dead.

    For sections that are passed on as a whole (masks, model, weights), the receiver's fields count.
    """
    keys, patterns = reads()
    family = masks.Family, "family", reads(*(PACKAGE / "data").glob("*masks.py"))[0]
    whole = {
        "masks": family,
        "eval.masks": family,
        "model": (unet.UNet, "self", reads(PACKAGE / "models" / "unet.py")[0]),
    }
    dead = []
    for key in validation.RULES:
        section, _, leaf = key.rpartition(".")
        if section in whole:
            receiver, owner, there = whole[section]
            name = "conv_type" if key == "model.kind" else leaf  # unet.from_section renames this one
            used = name in {field.name for field in dataclasses.fields(receiver)} and f"{owner}.{name}" in there
        elif section == "loss.weights":
            used = leaf in losses.term_names() and "loss.weights" in keys
        else:
            used = is_read(key, keys, patterns)
        if not used:
            dead.append(key)
    assert not dead, "no code reads these keys: remove them, or use them"


def test_a_dead_key_is_found():
    """The search of the test above finds dead keys: keys that resemble a living one do not count as read."""
    keys, patterns = reads()
    assert is_read("train.sample_every", keys, patterns) and is_read("data.size", keys, patterns)
    for key in ("train.size", "data.steps", "train.nothing_every", "optim.momentum", "size", "eval.threads"):
        assert not is_read(key, keys, patterns), key


def test_whole_sections_reach_their_receiver():
    """Each key of masks, eval.masks and model arrives in the object that is built from it."""
    config = changed(
        masks__kind="boxes",
        masks__area=[0.2, 0.3],
        masks__border=0.1,
        masks__path="there",
        masks__polarity="black_hole",
        masks__augment=False,
        masks__variable="tas",
        eval__masks__kind="shapes",
        eval__masks__border=0.05,
        model__kernels=[5, 3],
        model__depth=4,
        model__width=8,
        model__max_width=16,
        model__channels=1,
        model__norm="group",
        model__momentum=0.5,
        model__kind="gated",
        model__dtype="bfloat16",
        model__conv_impl="xla",
        model__negative_slope=0.01,
        model__first_norm=True,
        model__norm_bias=True,
        model__any_size=True,
        model__input_mean=[0.5],
        model__input_std=[0.25],
    )
    assert example_settings.train_masks(config) == masks.Family(
        "boxes", (0.2, 0.3), 0.1, "there", "black_hole", False, "tas"
    )
    family = example_settings.evaluation_masks(config)
    assert (family.kind, family.border, family.polarity, family.augment) == ("shapes", 0.05, "white_hole", False)
    model = build.unet_model(config)
    assert (model.kernels, model.depth, model.width, model.max_width) == ((5, 3), 4, 8, 16)
    assert (model.channels, model.norm, model.momentum, model.conv_type) == (1, "group", 0.5, "gated")
    assert (model.dtype, model.conv_impl) == ("bfloat16", "xla")
    assert (model.negative_slope, model.first_norm, model.norm_bias, model.any_size) == (0.01, True, True, True)
    assert (model.input_mean, model.input_std) == ((0.5,), (0.25,))


@pytest.mark.parametrize("key", validation.RULES)
@pytest.mark.parametrize("value", [None, {"a": 1}])
def test_every_key_refuses_another_type(key, value):
    """None, and a section in the place of a value, are reported with their key."""
    with pytest.raises(ValueError, match=r"the config does not work:\n") as caught:
        validation.validate(changed(**{key.replace(".", "__"): value}))
    wanted = validation.RULES[key][1]
    lines = str(caught.value).split("\n  ")
    expected = f"{key} is None; needs {wanted}" if value is None else f"unknown key {key}.a: did you mean "
    assert any(line.startswith(expected) for line in lines), lines


NAN, INF = float("nan"), float("inf")
TFDS = {"data__source": "tfds", "data__name": "celeb_a"}


@pytest.mark.parametrize(
    ("key", "values", "wanted"),
    [
        ("name", ["", "a/b", ".", "..", "/tmp", 3], "a plain name"),
        ("seed", [-1, 1.0, True, "0", 2**32], "an integer from 0 to 4294967295"),
        ("data__source", ["TFDS", "", 1, ["photos"]], "one of photos, folder, tfds"),
        ("data__path", [3], "a text"),
        ("data__eval_path", [False], "a text"),
        ("data__name", [3, ["celeb_a"]], "a text"),
        ("data__image_feature", [0], "a text"),
        ("data__dir", [False], "a text"),
        ("data__train_split", [0.9, ["train"]], "a text"),
        ("data__eval_split", [0.1], "a text"),
        ("data__eval_fraction", [-0.1, 1.0, "0.1", True, NAN], "a number from 0 to 0.9"),
        ("data__size", [0, 15, 512.0, "512", True], "an integer of at least 16"),
        ("data__crop_scale", [(0.5,), (0.5, 1.1), (0, 1), (0.9, 0.5), 0.5, "ab", (True, 1)], r"a pair \(low, high\)"),
        ("data__flip", [1, "yes"], "True or False"),
        ("data__cache", [0, "True"], "True or False"),
        ("data__threads", [0, -1, 1.5], "an integer of at least 1"),
        ("data__workers", [-1, 0.5], "an integer of at least 0"),
        ("masks__kind", ["circles", 1, True], f"one of {', '.join(masks.FAMILIES)}"),
        ("masks__area", [(-0.1, 0.5), (0.1, 1.5), (0.5, 0.1), 0.5, (NAN, 0.5), (0.1, 0.2, 0.3)], "a pair"),
        ("masks__border", [-0.1, 0.5, 20], "a number from 0 to 0.49"),
        ("masks__polarity", ["white", "", 0], "one of white_hole, black_hole"),
        ("masks__augment", [1], "True or False"),
        ("eval__masks__kind", ["circles"], f"one of {', '.join(masks.FAMILIES)}"),
        ("eval__masks__border", [0.5], "a number from 0 to 0.49"),
        ("model__kind", ["pconv", True], "one of partial, zero, mask_channel, gated"),
        ("model__depth", [0, 13, 4.0, True], "an integer from 1 to 12"),
        ("model__width", [0, 0.5], "an integer of at least 1"),
        ("model__max_width", [0, "512"], "an integer of at least 1"),
        ("model__kernels", [(), (7, 4), (3.0,), 3, "753", (-1,), (True,)], "odd integers"),
        ("model__channels", [0, 3.0, True, "3"], "an integer of at least 1"),
        ("model__negative_slope", [-0.1, 2, True], "a number from 0 to 1"),
        ("model__padding", ["same", 0], "one of hole, circular"),
        ("model__input_mean", [0.5, ("a",), (NAN,)], "numbers, one per channel, or none"),
        ("model__input_std", [1.0, (0.0, 1.0, 1.0), (-1,)], "positive numbers, one per channel, or none"),
        ("model__norm", ["layer", None], "one of batch, masked_batch, group, none"),
        ("model__momentum", [-0.1, 1.0], "a number from 0 to 0.9999999"),
        ("model__dtype", ["float64", "float16", 32], "one of float32, bfloat16"),
        ("model__conv_impl", ["cpu", "", None], "one of auto, onednn, xla"),
        ("model__mask_update", ["grow", "", None], "one of shrink, keep, vanish"),
        ("loss__weights__hole", [-1, "6", NAN, INF, True], "a number of at least 0"),
        ("loss__vgg16_weights", [False], "a text"),
        ("optim__lr", [-1e-4, "2e-4", NAN, INF], "a number of at least 0"),
        ("optim__schedule", ["linear", 0], "one of constant, cosine"),
        ("optim__warmup_steps", [-1, 0.5], "an integer of at least 0"),
        ("optim__clip_norm", [-1, NAN], "a number of at least 0"),
        ("optim__b1", [-0.1, 1.0, 1.1], "a number from 0 to 0.9999999"),
        ("optim__b2", [-0.1, 1.0, 1.1], "a number from 0 to 0.9999999"),
        ("optim__eps", [-1e-8], "a number of at least 0"),
        ("optim__ema", [-0.1, 1.0], "a number from 0 to 0.9999999"),
        ("init_from", [None, 4], "a text"),
        ("model__remat", [1, "yes"], "True or False"),
        ("loss__style_warmup_steps", [-1, 0.5], "an integer of at least 0"),
        ("train__steps", [-1, 1e6, "1000", True], "an integer of at least 0"),
        ("train__accumulate", [0, 2.0], "an integer of at least 1"),
        ("train__matmul_precision", ["tf32", "highest", None], "one of default, tensorfloat32, float32"),
        ("finetune__steps", [-1, 1e6], "an integer of at least 0"),
        ("finetune__lr", [-5e-5, NAN], "a number of at least 0"),
        ("finetune__freeze_statistics", [1, None], "True or False"),
        ("finetune__freeze_affine", [0, "encoder"], "True or False"),
        ("train__batch_size", [0, 6.0], "an integer of at least 1"),
        ("train__log_every", [0], "an integer of at least 1"),
        ("train__checkpoint_every", [0], "an integer of at least 1"),
        ("train__max_to_keep", [0], "an integer of at least 1"),
        ("train__sample_every", [0], "an integer of at least 1"),
        ("train__samples", [0], "an integer of at least 1"),
        ("eval__examples", [0, 1.5], "an integer of at least 1"),
        ("eval__batch_size", [0], "an integer of at least 1"),
        ("eval__seed", [-1, 0.0], "an integer of at least 0"),
    ],
)
def test_wrong_values_are_named(key, values, wanted):
    """The message has the key, the wrong value and what is needed."""
    for value in values:
        problem = re.escape(f"{key.replace('__', '.')} is {value!r}")
        with pytest.raises(ValueError, match=rf"\n  {problem}; needs {wanted}"):
            validation.validate(changed(**{key: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian__steps": 5}, r"unknown key trian.steps: did you mean train.steps\?"),
        ({"train__stpes": 5}, r"unknown key train.stpes: did you mean train.steps\?"),
        ({"optim__learning_rate": 5}, r"unknown key optim.learning_rate"),
        ({"train__keep": 5}, r"unknown key train.keep: did you mean train.max_to_keep\?"),
        ({"data__key": "image"}, r"unknown key data.key: did you mean data.image_feature\?"),
        ({"zzz": 5}, "unknown key zzz$"),
        ({"train": 5}, r"unknown key train\b"),
        ({"train": 5}, r"missing key train.batch_size: derive the config from experiments/default.py"),
    ],
)
def test_unknown_keys_are_named(changes, message):
    """A misspelt key is an error that suggests a similar key."""
    with pytest.raises(ValueError, match=message):
        validation.validate(changed(**changes))


def test_missing_keys_are_named():
    """A config that lacks keys is an error that asks to derive it from default.py."""
    with pytest.raises(ValueError, match=r"missing key data.size: derive the config from experiments/default.py"):
        validation.validate(removed("data", "size"))


def test_all_problems_are_reported_at_once():
    """All problems are listed in one error."""
    with pytest.raises(ValueError) as caught:
        validation.validate(changed(train__steps=-1, model__norm="x", trian__steps=1))
    assert len(str(caught.value).split("\n  ")) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data__size": 500},
            r"data.size: image is 500x500; needs multiples of 256 \(8 downsampling stages\): .*lower model.depth",
        ),
        ({"data__source": "folder"}, r"data.path is empty: set --config.data.path to a folder of images"),
        ({"data__path": "there"}, r'data.path is set and data.source is "photos": set --config.data.source=folder'),
        ({"data__eval_path": "there"}, "set --config.data.source=folder"),
        ({"data__source": "tfds"}, r"data.name is empty: set --config.data.name to a dataset of TFDS, e.g. celeb_a"),
        (
            TFDS | {"data__image_feature": ""},
            r"data.image_feature is empty: set --config.data.image_feature to the feature that holds the image",
        ),
        (TFDS | {"data__train_split": ""}, r"data.train_split is empty: set --config.data.train_split to a split"),
        (TFDS | {"data__eval_split": ""}, r"data.eval_split is empty: set --config.data.eval_split to a split"),
        (
            TFDS | {"data__eval_split": "train"},
            'data.train_split and data.eval_split are both "train"; need to be apart',
        ),
        (TFDS | {"data__path": "there"}, 'data.path is set and data.source is "tfds": set --config.data.source=folder'),
        ({"data__name": "celeb_a"}, 'data.name is set and data.source is "photos": set --config.data.source=tfds'),
        ({"data__dir": "there"}, 'data.dir is set and data.source is "photos": set --config.data.source=tfds'),
        ({"masks__area": (0.3, 0.3)}, r"masks: hole area is \(0.3, 0.3\); needs 0 <= low < high <= 1"),
        ({"masks__area": (0.5, 0.6), "masks__border": 0.2}, r"masks: hole area .* lower the area or the border"),
        ({"masks__kind": "folder"}, r'masks: masks are "folder"; needs the path of a directory of mask images'),
        ({"eval__masks__kind": "folder"}, r'eval.masks: masks are "folder"; needs the path'),
        ({"eval__masks__border": 0.15}, r"eval.masks: hole area is \(0.5, 0.6\) with a border of 0.15; at most 0.490"),
        ({"train__samples": 9}, "train.samples is 9; needs at most eval.batch_size, 8"),
        (
            {"optim__schedule": "cosine", "optim__warmup_steps": 100, "train__steps": 100},
            "optim.warmup_steps is 100; needs less than train.steps",
        ),
        ({"train__steps": 0, "finetune__steps": 0}, "train.steps and finetune.steps are both 0: nothing"),
        (
            {"model__mask_update": "keep", "model__kind": "gated"},
            'model.mask_update is "keep" and model.kind "gated", which has no mask to update: set model.mask_update=',
        ),
        (
            {"model__padding": "circular", "model__kind": "gated"},
            'padding is "circular", renormalise_twice False and',
        ),
        ({"model__input_std": (1.0,)}, r"input_mean is \(\) and input_std \(1.0,\); needs 3 values in both"),
        (
            {"model__norm": "masked_batch", "model__kind": "zero"},
            'model.norm is "masked_batch" and model.kind "zero", which has no mask to normalise by: set',
        ),
        (
            {"model__channels": 1, "loss__vgg16_weights": "there.npz"},
            "loss.vgg16_weights is set and model.channels is 1: VGG16 sees colour, so set it to an empty text",
        ),
        (
            {"loss__weights": dict.fromkeys(losses.term_names(), 0)},
            r"loss.weights that are on \(valid, hole, tv, log_mse\) are 0",
        ),
        (
            {"loss__weights": dict.fromkeys(losses.term_names(), 0) | {"style_out": 120}},
            r"on \(valid, hole, tv, log_mse\) are 0",
        ),
        (
            {"model__guess": True},
            "model.guess is True and train.pyramid_levels 0; a guess comes from a pyramid: set both",
        ),
        ({"train__pyramid_levels": 2}, "model.guess is False and train.pyramid_levels 2; a guess comes from a pyramid"),
        (
            {"model__guess": True, "train__pyramid_levels": 3, "model__depth": 8},
            r"data.size is 512, 128 at the coarsest of 3 levels; needs a multiple of 256 there",
        ),
        (
            {"optim__schedule": "trapezoid"},
            'optim.schedule is "trapezoid" and optim.cooldown_steps 0; needs 1 to 500000',
        ),
        (
            {"optim__schedule": "trapezoid", "optim__warmup_steps": 9, "optim__cooldown_steps": 499_992},
            "optim.cooldown_steps 499992; needs 1 to 499991",
        ),
        ({"masks__path": "there"}, 'masks.path is there and the kind "strokes": set masks.kind=folder'),
    ],
)
def test_wrong_combinations_are_named(changes, message):
    """Values that are valid by themselves and contradict each other are named with what to change."""
    with pytest.raises(ValueError, match=rf"\n  .*{message}"):
        validation.validate(changed(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"data__size": 256, "model__depth": 7},
        {"data__source": "folder", "data__path": "there", "data__eval_path": "elsewhere"},
        TFDS,
        TFDS | {"data__dir": "there", "data__train_split": "train[:90%]", "data__eval_split": "train[90%:]"},
        {"masks__kind": "folder", "masks__path": "there"},
        {"eval__masks__border": 0.04, "masks__border": 0.04},
        {"masks__area": [0.0, 1.0], "data__crop_scale": [1, 1], "model__kernels": [3]},
        {"optim__lr": 1, "loss__weights__tv": 0, "optim__schedule": "cosine"},
        {"train__steps": 0, "optim__schedule": "cosine", "optim__warmup_steps": 10},
        {"model__norm": "masked_batch", "finetune__steps": 0},
        {"model__guess": True, "train__pyramid_levels": 3, "model__depth": 7},
        {"optim__schedule": "trapezoid", "optim__warmup_steps": 9, "optim__cooldown_steps": 499_991},
    ],
)
def test_right_combinations_pass(changes):
    """Working values pass, also lists for pairs and integers for numbers, as JSON and the command line give them."""
    validation.validate(changed(**changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=experiments/quickstart.py", "--config.trian.steps=1"], "trian.steps: did you mean train.steps?"),
        (["--config=experiments/quickstart.py", "--config.train.steps=many"], "--config.train.steps=many: invalid"),
        (["--config=experiments/quickstart.py", "--config.data.size=100"], "image is 100x100; needs multiples of 8"),
        (["--config=experiments/nowhere.py", "--config.train.steps=1"], "experiments/nowhere.py"),
        (["--config=experiments/nowhere.py"], "experiments/nowhere.py"),
    ],
)
def test_command_line_mistakes_are_reported_without_a_traceback(tmp_path, server, arguments, message):
    """A mistake ends the command with a message and an exit code that is not 0, and nothing is written."""
    code, printed = server(tmp_path, "main", [f"--workdir={tmp_path / 'run'}", *arguments])
    assert code != 0
    assert message in printed and "Traceback" not in printed and "File " not in printed
    assert not list(tmp_path.iterdir())
