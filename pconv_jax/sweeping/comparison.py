"""The numbers of a sweep: means over seeds, and differences to the baseline that are paired by seed and by example.

Two intervals answer two questions. The interval over examples answers: would these networks differ on other crops and
masks? The interval over seeds answers: would other trainings of the same variants differ? It needs several seeds.
"""

import dataclasses

import numpy as np

from pconv_jax import errors
from pconv_jax.evaluation import inputs, intervals
from pconv_jax.evaluation import scores as evaluation_scores
from pconv_jax.sweeping import plan, results

METRICS = ("psnr", "ssim", "l1_percent", "hole_psnr")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of the finished runs, all on the same examples.

    Attributes:
      networks: scores `[examples, METRICS]` by variant and seed, for variants with a finished run.
      baselines: the same by baseline without learning, which does not depend on the seed.
      names: names of the examples, in order.
      runs: the finished runs by variant and seed.
    """

    networks: dict[str, dict[int, np.ndarray]]
    baselines: dict[str, np.ndarray]
    names: tuple[str, ...]
    runs: dict[str, dict[int, plan.Run]]

    @property
    def fingerprint(self) -> str:
        """Returns a text that identifies the examples."""
        return inputs.fingerprint(self.names)


def read(sweep: plan.Plan) -> Scores:
    """Reads the scores of all finished runs.

    Raises:
      UserError: no run is finished, a run directory belongs to another config, or two runs were scored on different
        examples.
    """
    networks, baselines, runs, names, first = {}, {}, {}, None, None
    for run in sweep.runs:
        content = results.scores(run)
        if content is None:
            continue
        methods = {}
        for record in content["records"]:
            methods.setdefault(record["method"], []).append(record)
        own = tuple(record["name"] for record in methods[evaluation_scores.NETWORK])
        if names is None:
            names, first = own, run
            baselines = {
                name: _values(records) for name, records in methods.items() if name != evaluation_scores.NETWORK
            }
        if own != names:
            raise errors.UserError(
                f"{first.workdir} and {run.workdir} were scored on different examples ({_difference(names, own)}) and "
                "cannot be paired: were the evaluation images changed between them?"
            )
        networks.setdefault(run.variant, {})[run.seed] = _values(methods[evaluation_scores.NETWORK])
        runs.setdefault(run.variant, {})[run.seed] = run
    if names is None:
        raise errors.UserError(f"no run of {sweep.directory} is finished: nothing to report")
    return Scores(networks, baselines, names, runs)


def means(scores: Scores, order: list[str]) -> list[dict]:
    """Computes, per variant, the mean over seeds of the mean over examples, with Student's interval over seeds.

    Args:
      scores: scores of the sweep.
      order: names of the variants in the order of the rows.

    Returns:
      Rows with `variant, seeds, examples` and, for each of `METRICS`, `<metric>, <metric>_low, <metric>_high`. The
      interval is None for a single seed. Baselines without learning come last and have no seeds.
    """
    rows = []
    for variant in order:
        if variant in scores.networks:
            values_by_seed = scores.networks[variant]
            means_by_seed = np.array([values.mean(axis=0) for values in values_by_seed.values()])
            rows.append(_row(variant, list(values_by_seed), len(scores.names), means_by_seed))
    for baseline, values in scores.baselines.items():
        rows.append(_row(baseline, [], len(scores.names), values.mean(axis=0, keepdims=True)))
    return rows


def differences(scores: Scores, order: list[str]) -> list[dict]:
    """Computes the difference of each variant to the sweep's baseline over the seeds that both have.

    Args:
      scores: scores of the sweep.
      order: names of the variants in the order of the rows.

    Returns:
      Rows with `variant, metric, seeds, examples, difference, low, high, p, seeds_low, seeds_high`. The difference of
      an example is the mean over the paired seeds. `low, high, p` come from `intervals.paired` over the examples;
      `seeds_low, seeds_high` is Student's interval over the paired seeds, None for a single one.
    """
    rows, base = [], scores.networks.get(plan.BASELINE, {})
    for variant in order:
        values_by_seed = scores.networks.get(variant, {})
        seeds = [seed for seed in values_by_seed if seed in base]
        if variant == plan.BASELINE or not seeds:
            continue
        mine, theirs = (np.array([values[seed] for seed in seeds]) for values in (values_by_seed, base))
        for column, metric in enumerate(METRICS):
            pair = intervals.paired(mine[..., column].mean(axis=0), theirs[..., column].mean(axis=0))
            over_seeds = intervals.student((mine - theirs)[..., column].mean(axis=1)) or (None, None)
            row = {"variant": variant, "metric": metric, "seeds": _listed(seeds), "examples": len(scores.names)}
            row |= {"difference": pair.difference, "low": pair.low, "high": pair.high, "p": pair.p}
            rows.append(row | {"seeds_low": over_seeds[0], "seeds_high": over_seeds[1]})
    return rows


def seed_differences(scores: Scores, variant: str, metric: str) -> list[float]:
    """Computes the difference of a variant to the sweep's baseline for each seed that both have.

    Args:
      scores: scores of the sweep.
      variant: name of the variant.
      metric: one of `METRICS`.

    Returns:
      Means over the examples, one per seed.
    """
    base, column = scores.networks.get(plan.BASELINE, {}), METRICS.index(metric)
    values = scores.networks.get(variant, {})
    return [float((values[seed] - base[seed])[:, column].mean()) for seed in values if seed in base]


def _row(name, seeds, examples, by_seed):
    row = {"variant": name, "seeds": _listed(seeds), "examples": examples}
    for column, metric in enumerate(METRICS):
        low, high = intervals.student(by_seed[:, column]) or (None, None)
        row |= {metric: float(by_seed[:, column].mean()), f"{metric}_low": low, f"{metric}_high": high}
    return row


def _listed(seeds):
    return " ".join(map(str, seeds))


def _values(records):
    return np.array([[record[metric] for metric in METRICS] for record in records], np.float64)


def _difference(names, others):
    if len(names) != len(others):
        return f"{len(names)} and {len(others)}"
    index = next(i for i, (a, b) in enumerate(zip(names, others, strict=True)) if a != b)
    return f"{names[index]} and {others[index]} in place {index}"
