"""The plan of a sweep: every variant of a sweep file with every seed, checked before anything runs.

A sweep file is an experiment file, whose `get_config()` returns the baseline, with two more names:

    SEEDS = (0, 1, 2)                 # Each variant is trained with each of these seeds.
    def get_variants(config):         # config: the baseline with the overrides of the command line
        return {"norm": {"norm_group": {"model.norm": "group"}, "norm_none": "left out: the reason"}}

For `--smoke` it also defines `SMOKE = {"train.steps": 10, ..}` and `SMOKE_SEEDS`. The report shows variants by group.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from pconv_jax import errors
from pconv_jax.training import validation

BASELINE = "baseline"

# Keys that decide the evaluation set, which all variants share, and keys that the sweep sets itself.
_SHARED = (
    "eval.",
    "data.size",
    "data.source",
    "data.path",
    "data.eval_",
    "data.name",
    "data.image_feature",
    "data.dir",
    "data.variable",
    "data.channel_axis",
    "data.grid",
)
_SHARED += ("data.max_pixels", "model.channels")
_OWN = ("name", "seed")


@dataclasses.dataclass(frozen=True)
class File:
    """The contents of a sweep file.

    Attributes:
      path: path of the file.
      get_config: returns the baseline.
      get_variants: takes the baseline with overrides and returns the variants, `{group: {name: overrides or reason}}`.
      seeds: seeds of every variant.
      smoke: overrides of all variants for `--smoke`.
      smoke_seeds: seeds for `--smoke`; `seeds` if empty.
    """

    path: str
    get_config: Callable[[], ml_collections.ConfigDict]
    get_variants: Callable[[ml_collections.ConfigDict], Mapping[str, Mapping[str, Any]]]
    seeds: Sequence[int]
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smoke_seeds: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      variant: name of the variant.
      seed: seed of the run.
      config: config of the run.
      workdir: run directory.
      arguments: command line of `pconv_jax.main` that yields `config`.
    """

    variant: str
    seed: int
    config: ml_collections.ConfigDict
    workdir: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Returns the name of the run for logs and messages."""
        return f"{self.variant} seed {self.seed}"

    @property
    def log(self) -> str:
        """Returns the path of the log file beside the run directory."""
        return f"{self.workdir}.log"

    @property
    def steps(self) -> int:
        """Returns the number of steps of both phases."""
        return self.config.train.steps + self.config.finetune.steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep: its variants and its runs.

    Attributes:
      name: name of the sweep.
      file: path of the sweep file.
      directory: directory of the runs and of the report.
      groups: names of the variants by group, in order, without the baseline.
      changes: by variant, the overrides that change the baseline.
      left_out: by variant that is left out, the reason.
      runs: all runs: the first seed of every variant, the baseline first, then the next seed.
      chosen: the variants that were asked for; empty if all were.
    """

    name: str
    file: str
    directory: str
    groups: dict[str, list[str]]
    changes: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    runs: list[Run]
    chosen: tuple[str, ...] = ()

    @property
    def variants(self) -> list[str]:
        """Returns the baseline, then the other variants by group."""
        return list(self.changes)


def make(
    file: File,
    overrides: Mapping[str, Any],
    *,
    variants: Sequence[str] = (),
    seeds: Sequence[int] = (),
    smoke: bool = False,
    directory: str | None = None,
) -> Plan:
    """Makes the plan of a sweep and checks everything that it will run.

    Args:
      file: the sweep file.
      overrides: overrides of the baseline, and so of all variants, by dotted key.
      variants: names of the variants to train beside the baseline; empty for all.
      seeds: seeds instead of those of the file; empty for those.
      smoke: whether to train at toy size.
      directory: directory of the sweep; by default `runs/<name of the config>`, with `_smoke` appended for `smoke`.

    Returns:
      The plan.

    Raises:
      UserError: something in the file or the arguments does not work; the message lists all problems.
    """
    if "seed" in overrides:
        raise errors.UserError(f"--config.seed is set by the sweep, run by run: give --seeds={overrides['seed']}")
    changed = {**(file.smoke if smoke else {}), **overrides}
    base, problems = _changed(file.get_config(), changed)
    if not problems:
        problems = _problems(base)
    if problems:
        raise errors.UserError(f"the baseline of {file.path} does not work:\n  " + "\n  ".join(problems))
    seeds = list(seeds or (file.smoke_seeds if smoke else ()) or file.seeds)
    problems = _wrong_seeds(seeds)
    groups = file.get_variants(base)
    wrong = _wrong_form(groups)
    if wrong:
        raise errors.UserError(f"{file.path} does not work:\n  " + "\n  ".join(problems + wrong))
    configs, groups, left_out, variant_problems = _variants(base, groups, variants)
    problems += variant_problems
    if problems:
        raise errors.UserError(f"{file.path} does not work:\n  " + "\n  ".join(problems))
    name = f"{base.name}_smoke" if smoke else base.name
    directory = directory or os.path.join("runs", name)
    runs = [
        _run(file.path, directory, variant, seed, config, {**changed, **changes})
        for seed in seeds
        for variant, (config, changes) in configs.items()
    ]
    before = validation.flatten(base)
    differing = {
        variant: {key: value for key, value in changes.items() if validation.flatten(config)[key] != before[key]}
        for variant, (config, changes) in configs.items()
    }
    return Plan(name, file.path, directory, groups, differing, left_out, runs, tuple(variants))


def _variants(base, groups, chosen):
    """Returns `({name: (config, overrides)}, groups, left out, problems)` with the baseline first."""
    names = [name for group in groups.values() for name in group]
    problems = [
        f"the variant {name} is unknown; needs some of {', '.join(names)}"
        for name in chosen
        if name not in names and name != BASELINE
    ]
    configs, kept, left_out, names_by_config = {BASELINE: (base, {})}, {}, {}, {_key(base): BASELINE}
    for group, group_variants in groups.items():
        for name, changes in group_variants.items():
            if chosen and name not in chosen:
                continue
            if isinstance(changes, str):
                left_out[name] = changes
                continue
            config, wrong = _changed(base, changes)
            wrong += [f"{key} is not for variants: {reason}" for key in changes if (reason := _not_for_variants(key))]
            problems += [f"variant {name}: {text}" for text in wrong or _problems(config)]
            twin = names_by_config.setdefault(_key(config), name)
            if not wrong and twin == BASELINE:
                left_out[name] = "the same as the baseline"
            elif not wrong and twin != name:
                problems.append(f"variant {name}: the same as {twin}")
            else:
                configs[name] = config, dict(changes)
                kept.setdefault(group, []).append(name)
    if not problems and len(configs) == 1:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        problems.append(f"no variant is left beside the baseline{f' ({reasons})' if reasons else ''}")
    return configs, kept, left_out, problems


def _wrong_form(groups):
    """Returns what is wrong with the form of `{group: {name: overrides or reason}}`."""
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        return ["get_variants() needs to give {group: {name: {key: value}}}"]
    names = [name for group in groups.values() for name in group]
    if not names:
        return ["get_variants() gives no variant"]
    problems = [
        f"variant {name!r} needs a name of letters, digits, _ and -, other than {BASELINE}"
        for name in names
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)) or name == BASELINE
    ]
    problems += [f"variant {name} is there {n} times" for name, n in collections.Counter(names).items() if n > 1]
    return problems + [
        f"variant {name} is {changes!r}; needs overrides {{key: value}}, or the reason for which it is left out"
        for group in groups.values()
        for name, changes in group.items()
        if not isinstance(changes, (Mapping, str))
    ]


def _wrong_seeds(seeds):
    fits, needed = validation.RULES["seed"]
    problems = [f"seed {seed!r}; needs {needed}" for seed in seeds if not fits(seed)]
    problems += [f"seed {seed!r} is there {n} times" for seed, n in collections.Counter(seeds).items() if n > 1]
    return problems or ([] if seeds else ["no seeds; needs one, and three for an interval that means something"])


def _not_for_variants(key):
    """Returns why a variant may not change a key, or None if it may."""
    if key in _OWN:
        return "the sweep sets it"
    if key.startswith(_SHARED):
        return "variants are compared on the same inputs; give it for all, --config.key=value"
    return None


def _changed(config, changes):
    """Returns a config with changes, and what is wrong with these."""
    problems = []
    for key, value in changes.items():
        if key not in validation.RULES:
            problems.append(validation.unknown(key))
        elif not validation.RULES[key][0](value):
            problems.append(f"{key} is {value!r}; needs {validation.RULES[key][1]}")
    changed = config.copy_and_resolve_references()
    if not problems:
        changed.update_from_flattened_dict(changes)
    return changed, problems


def _problems(config):
    try:
        validation.validate(config)
    except errors.UserError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []


def _key(config):
    return repr(sorted(validation.flatten(config).items()))


def _run(path, directory, variant, seed, config, changes):
    own = {"name": variant, "seed": seed}
    config, _ = _changed(config, own)
    workdir = os.path.join(directory, variant, f"seed_{seed}")
    overrides = {**changes, **own}
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    return Run(variant, seed, config, workdir, (f"--config={path}", *flags, f"--workdir={workdir}"))
