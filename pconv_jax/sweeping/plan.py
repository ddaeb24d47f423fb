"""What a sweep trains: every variant of a sweep file for every seed, checked before anything runs.

A sweep file is an experiment file, whose `get_config()` is the baseline, with two more names:

    SEEDS = (0, 1, 2)                 # each variant is trained with each
    def get_variants(config):         # of the baseline, overrides included
        return {"norm": {"norm_group": {"model.norm": "group"}, "norm_none": "left out: the reason"}}

and, for `--smoke`, `SMOKE = {"train.steps": 10, ..}` and `SMOKE_SEEDS`. Groups stand together in the report.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from pconv_jax.training import validation

BASELINE = "baseline"

# What the evaluation set follows from, and what the sweep sets itself.
_SHARED = ("eval.", "data.size", "data.source", "data.path", "data.eval_", "data.name", "data.key", "data.dir")
_SHARED += ("data.max_pixels", "model.channels")
_OWN = ("name", "seed")


@dataclasses.dataclass(frozen=True)
class File:
    """The names of a sweep file."""

    path: str
    get_config: Callable[[], ml_collections.ConfigDict]
    get_variants: Callable[[ml_collections.ConfigDict], Mapping[str, Mapping[str, Any]]]
    seeds: Sequence[int]
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smoke_seeds: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: `arguments` are those of `pconv_jax.main`, which give `config`."""

    variant: str
    seed: int
    config: ml_collections.ConfigDict
    workdir: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.variant} seed {self.seed}"

    @property
    def log(self) -> str:
        """The file of what it prints, beside its run directory."""
        return f"{self.workdir}.log"

    @property
    def steps(self) -> int:
        """Of both phases."""
        return self.config.train.steps + self.config.finetune.steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
      name: of the sweep.
      file: its path.
      directory: where its runs and its report lie.
      groups: names of variants by group, in order, without the baseline.
      changes: by variant, the overrides that change the baseline.
      left_out: why, by variant.
      runs: the first seed of all variants, the baseline first, then the next seed.
      chosen: the variants that were asked for; none: all.
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
        """The baseline, then the others by group."""
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
    """Checks a sweep file and everything that it asks for.

    Args:
      file: the sweep file.
      overrides: of the baseline, by dotted key: for all variants.
      variants: names of those to train beside the baseline; all if there are none.
      seeds: in place of the file's.
      smoke: at toy size.
      directory: where to put it; default `runs/<name of the config>`, with `_smoke` behind it for that.

    Raises:
      ValueError: all that is wrong.
    """
    if "seed" in overrides:
        raise ValueError(f"--config.seed is set by the sweep, run by run: give --seeds={overrides['seed']}")
    changed = {**(file.smoke if smoke else {}), **overrides}
    base, problems = _changed(file.get_config(), changed)
    if not problems:
        problems = _problems(base)
    if problems:
        raise ValueError(f"the baseline of {file.path} does not work:\n  " + "\n  ".join(problems))
    seeds = list(seeds or (file.smoke_seeds if smoke else ()) or file.seeds)
    problems = _wrong_seeds(seeds)
    groups = file.get_variants(base)
    wrong = _wrong_form(groups)
    if wrong:
        raise ValueError(f"{file.path} does not work:\n  " + "\n  ".join(problems + wrong))
    configs, groups, left_out, wrong = _variants(base, groups, variants)
    problems += wrong
    if problems:
        raise ValueError(f"{file.path} does not work:\n  " + "\n  ".join(problems))
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
    """`({name: (config, overrides)}, groups, left out, problems)`, the baseline first."""
    names = [name for group in groups.values() for name in group]
    problems = [
        f"the variant {name} is unknown; needs some of {', '.join(names)}"
        for name in chosen
        if name not in names and name != BASELINE
    ]
    configs, kept, left_out, seen = {BASELINE: (base, {})}, {}, {}, {_key(base): BASELINE}
    for group, of_group in groups.items():
        for name, changes in of_group.items():
            if chosen and name not in chosen:
                continue
            if isinstance(changes, str):
                left_out[name] = changes
                continue
            config, wrong = _changed(base, changes)
            wrong += [f"{key} is not for variants: {why}" for key in changes if (why := _not_for_variants(key))]
            problems += [f"variant {name}: {text}" for text in wrong or _problems(config)]
            twin = seen.setdefault(_key(config), name)
            if not wrong and twin == BASELINE:
                left_out[name] = "the same as the baseline"
            elif not wrong and twin != name:
                problems.append(f"variant {name}: the same as {twin}")
            else:
                configs[name] = config, dict(changes)
                kept.setdefault(group, []).append(name)
    if not problems and len(configs) == 1:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        problems.append(f"no variant is left beside the baseline{f' ({reasons})' if reasons else ''}")
    return configs, kept, left_out, problems


def _wrong_form(groups):
    """What is not `{group: {name: overrides or reason}}`."""
    if not isinstance(groups, Mapping) or not all(isinstance(of_group, Mapping) for of_group in groups.values()):
        return ["get_variants() needs to give {group: {name: {key: value}}}"]
    names = [name for of_group in groups.values() for name in of_group]
    if not names:
        return ["get_variants() gives no variant"]
    problems = [
        f"variant {name!r} needs a name of letters, digits, _ and -, other than {BASELINE}"
        for name in names
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)) or name == BASELINE
    ]
    problems += [f"variant {name} is there {n} times" for name, n in collections.Counter(names).items() if n > 1]
    return problems + [
        f"variant {name} is {changes!r}; needs overrides {{key: value}}, or a text that says why it is left out"
        for of_group in groups.values()
        for name, changes in of_group.items()
        if not isinstance(changes, (Mapping, str))
    ]


def _wrong_seeds(seeds):
    fits, wanted = validation.RULES["seed"]
    problems = [f"seed {seed!r}; needs {wanted}" for seed in seeds if not fits(seed)]
    problems += [f"seed {seed!r} is there {n} times" for seed, n in collections.Counter(seeds).items() if n > 1]
    return problems or ([] if seeds else ["no seeds; needs one, and three for an interval worth the name"])


def _not_for_variants(key):
    """Why a variant may not change a key, or None."""
    if key in _OWN:
        return "the sweep sets it"
    if key.startswith(_SHARED):
        return "variants are compared on the same inputs; give it for all, --config.key=value"
    return None


def _changed(config, changes):
    """`(config with changes, what is wrong with them)`."""
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
    except ValueError as error:
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
