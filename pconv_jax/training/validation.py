"""Checks configs: one rule per key. A wrong key, value or combination is an error before anything starts."""

import copy
import difflib
import functools
import os

from pconv_jax import errors
from pconv_jax.data import masks, sources
from pconv_jax.models import layers, options
from pconv_jax.ops import losses, mask_update
from pconv_jax.ops.cpu import dispatch
from pconv_jax.training import combinations


def _number(low, high=float("inf"), kind=float):
    text = f"{'an integer' if kind is int else 'a number'} " + (
        f"of at least {low}" if high == float("inf") else f"from {low} to {high}"
    )
    types = (int,) if kind is int else (int, float)
    return lambda v: type(v) in types and low <= v <= high and v != float("inf"), text


def _integer(low, high=float("inf")):
    return _number(low, high, int)


def _choice(options):
    return lambda v: any(type(v) is type(o) and v == o for o in options), "one of " + ", ".join(map(str, options))


def _pair(low, high):
    def fits(v):
        return len(v) == 2 and all(type(x) in (int, float) for x in v) and low <= v[0] <= v[1] <= high

    return lambda v: isinstance(v, (tuple, list)) and fits(v), f"a pair (low, high) within [{low}, {high}]"


def _kernels(value):
    return (
        isinstance(value, (tuple, list))
        and len(value) > 0
        and all(type(k) is int and k > 0 and k % 2 == 1 for k in value)
    )


def _numbers(value):
    return isinstance(value, (tuple, list)) and all(type(x) in (int, float) and abs(x) < float("inf") for x in value)


def _grid(value):
    return isinstance(value, (tuple, list)) and len(value) in (0, 2) and all(type(n) is int and n > 0 for n in value)


OPTIMIZERS = ("adam", "muon")  # Those of optimizers.py, which is not imported: filling photographs needs no optax.

_TEXT = (lambda v: isinstance(v, str), "a text")
_SWITCH = (lambda v: isinstance(v, bool), "True or False")

RULES = {
    "name": (lambda v: isinstance(v, str) and v == os.path.basename(v) and v not in ("", ".", ".."), "a plain name"),
    "seed": _integer(0, 2**32 - 1),
    "init_from": _TEXT,
    "data.source": _choice(sources.SOURCES),
    **{f"data.{key}": _TEXT for kind in sources.SOURCES.values() for key in (*kind.required, *kind.own)},
    "data.grid": (_grid, "two numbers of cells, (latitude, longitude), or none"),
    "data.eval_fraction": _number(0, 0.9),
    "data.max_pixels": _integer(1),
    "data.size": _integer(16),
    "data.crop_scale": _pair(0.01, 1),
    "data.flip": _SWITCH,
    "data.rotate": _SWITCH,
    "data.permute_channels": _SWITCH,
    "data.cache": _SWITCH,
    "data.threads": _integer(1),
    "data.workers": _integer(0),
    **{
        f"{section}.{key}": rule
        for section in ("masks", "eval.masks")
        for key, rule in {
            "kind": _choice(masks.FAMILIES),
            "border": _number(0, 0.49),
            "path": _TEXT,
            "variable": _TEXT,
            "polarity": _choice(masks.POLARITIES),
            "augment": _SWITCH,
        }.items()
    },
    "masks.area": _pair(0, 1),
    "model.kind": _choice(layers.CONV_TYPES),
    "model.depth": _integer(1, 12),
    "model.width": _integer(1),
    "model.max_width": _integer(1),
    "model.kernels": (_kernels, "odd integers, e.g. (7, 5, 5, 3)"),
    "model.channels": _integer(1),
    "model.norm": _choice(layers.NORM_TYPES),
    "model.center": _SWITCH,
    "model.momentum": _number(0, 0.9999999),
    "model.remat": _SWITCH,
    "model.dtype": _choice(("float32", "bfloat16")),
    "model.conv_impl": _choice(dispatch.IMPLS),
    "model.mask_update": _choice(mask_update.RULES),
    "model.guess": _SWITCH,
    "model.negative_slope": _number(0, 1),
    "model.first_norm": _SWITCH,
    "model.norm_bias": _SWITCH,
    "model.padding": _choice(options.PADDINGS),
    "model.any_size": _SWITCH,
    "model.input_mean": (_numbers, "numbers, one per channel, or none"),
    "model.input_std": (lambda v: _numbers(v) and all(x > 0 for x in v), "positive numbers, one per channel, or none"),
    "model.renormalise_twice": _SWITCH,
    "model.soft_mask": _SWITCH,
    **{f"loss.weights.{term}": _number(0) for term in losses.term_names()},
    "loss.style_warmup_steps": _integer(0),
    "loss.area_weights": _SWITCH,
    "loss.vgg16_weights": _TEXT,
    "optim.name": _choice(OPTIMIZERS),
    "optim.lr": _number(0),
    "optim.schedule": _choice(("constant", "cosine", "trapezoid")),
    "optim.cooldown_steps": _integer(0),
    "optim.warmup_steps": _integer(0),
    "optim.clip_norm": _number(0),
    "optim.b1": _number(0, 0.9999999),
    "optim.b2": _number(0, 0.9999999),
    "optim.eps": _number(0),
    "optim.ema": _number(0, 0.9999999),
    "train.steps": _integer(0),
    "train.pyramid_levels": _integer(0, 12),
    "train.batch_size": _integer(1),
    "train.accumulate": _integer(1),
    "train.matmul_precision": _choice(("default", "tensorfloat32", "float32")),
    "train.log_every": _integer(1),
    "train.checkpoint_every": _integer(1),
    "train.max_to_keep": _integer(1),
    "train.sample_every": _integer(1),
    "train.samples": _integer(1),
    "finetune.steps": _integer(0),
    "finetune.lr": _number(0),
    "finetune.freeze_statistics": _SWITCH,
    "finetune.freeze_affine": _SWITCH,
    "eval.examples": _integer(1),
    "eval.buckets": _SWITCH,
    "eval.native": _SWITCH,
    "eval.crop_scale": _pair(0.01, 1),
    "eval.batch_size": _integer(1),
    "eval.seed": _integer(0),
}

# Keys that older versions called by another name: the config.json of their runs is read with the new one.
RENAMED = {"data.key": "data.image_feature", "train.keep": "train.max_to_keep"}

# Keys that runs of older versions lack, with the values that describe those runs.
ADDED = {
    "model.guess": False,
    "train.pyramid_levels": 0,
    "loss.weights.log_mse": 0.0,
    "optim.cooldown_steps": 0,
    "optim.name": "adam",
    "eval.buckets": True,
    "eval.native": False,
    "model.negative_slope": 0.2,
    "model.first_norm": False,
    "model.norm_bias": False,
    "model.padding": "hole",
    "model.any_size": False,
    "model.input_mean": [],
    "model.input_std": [],
    "model.renormalise_twice": False,
    "model.soft_mask": False,
    "train.matmul_precision": "default",
    "data.variable": "",
    "data.channel_axis": "",
    "data.grid": [],
    "masks.variable": "",
    "eval.masks.variable": "",
    "loss.area_weights": False,
}


def validate(config):
    """Checks every key, then the combinations of values.

    Raises:
      UserError: something is wrong; the message lists all wrong keys with their value, the rule, and the fix.
    """
    values = flatten(config)
    problems = [unknown(key) for key in sorted(values.keys() - RULES.keys())]
    problems += [
        f"missing key {key}: derive the config from experiments/default.py" for key in RULES if key not in values
    ]
    for key, (fits, wanted) in RULES.items():
        if key in values and not fits(values[key]):
            problems.append(f"{key} is {values[key]!r}; needs {wanted}")
    if not problems:
        problems = combinations.problems(config)
    if problems:
        raise errors.UserError("the config does not work:\n  " + "\n  ".join(problems))


def unknown(key: str) -> str:
    """Returns the message about a key without a rule, with the closest key that has one."""
    close = [RENAMED[key]] if key in RENAMED else difflib.get_close_matches(key, RULES, n=1)
    return f"unknown key {key}: did you mean {close[0]}?" if close else f"unknown key {key}"


def rename_keys(values: dict) -> dict:
    """Returns the nested values of a config that an older version wrote, with the keys of this version."""
    sections = copy.deepcopy(values)
    for old, new in RENAMED.items():
        (section, old_key), (_, new_key) = old.split("."), new.split(".")
        if isinstance(sections.get(section), dict) and old_key in sections[section]:
            sections[section].setdefault(new_key, sections[section].pop(old_key))
    for key, value in ADDED.items():
        *path, name = key.split(".")
        section = functools.reduce(lambda values, part: values.get(part, {}), path, sections)
        if isinstance(section, dict):
            section.setdefault(name, value)
    return sections


def flatten(tree, prefix=""):
    """Returns the values of a nested config as `{"section.key": value}`.

    Args:
      tree: the config or a section of it.
      prefix: the text before each key.
    """
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if hasattr(value, "items") else {f"{prefix}{key}": value}
    return flat
