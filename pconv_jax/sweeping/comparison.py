"""The numbers of a sweep: means over seeds, and differences to the baseline paired by seed and by example.

Two different questions have two different intervals. Over examples: would these networks differ on other crops and
masks? Over seeds: would other trainings of the same variants differ? The second needs seeds, the more the better.
"""

import dataclasses

import numpy as np

from pconv_jax.evaluation import inputs, intervals, scores
from pconv_jax.sweeping import plan, results

METRICS = ("psnr", "ssim", "l1_percent", "hole_psnr")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of the finished runs, all on the same examples.

    Attributes:
      networks: `[examples, METRICS]` by variant and seed; a variant without a finished run has none.
      fillings: the same by filling without learning, which no seed changes.
      names: of the examples, in order.
      runs: the finished runs by variant and seed.
    """

    networks: dict[str, dict[int, np.ndarray]]
    fillings: dict[str, np.ndarray]
    names: tuple[str, ...]
    runs: dict[str, dict[int, plan.Run]]

    @property
    def fingerprint(self) -> str:
        """Of the examples."""
        return inputs.fingerprint(self.names)


def read(sweep: plan.Plan) -> Scores:
    """Reads the scores of all finished runs.

    Raises:
      ValueError: no run is finished, a run directory belongs to another config, or two runs were scored on different
        examples, by their names.
    """
    networks, fillings, runs, names, first = {}, {}, {}, None, None
    for run in sweep.runs:
        content = results.scores(run)
        if content is None:
            continue
        methods = {}
        for record in content["records"]:
            methods.setdefault(record["method"], []).append(record)
        own = tuple(record["name"] for record in methods[scores.NETWORK])
        if names is None:
            names, first = own, run
            fillings = {name: _values(records) for name, records in methods.items() if name != scores.NETWORK}
        if own != names:
            raise ValueError(
                f"{first.workdir} and {run.workdir} were scored on different examples ({_difference(names, own)}) and "
                "cannot be paired: were the evaluation images changed between them?"
            )
        networks.setdefault(run.variant, {})[run.seed] = _values(methods[scores.NETWORK])
        runs.setdefault(run.variant, {})[run.seed] = run
    if names is None:
        raise ValueError(f"no run of {sweep.directory} is finished: nothing to report")
    return Scores(networks, fillings, names, runs)


def means(found: Scores, order: list[str]) -> list[dict]:
    """Per variant the mean over seeds of the mean over examples, with Student's interval over seeds.

    Returns:
      Rows of `variant, seeds, examples` and, for each of `METRICS`, `<metric>, <metric>_low, <metric>_high`; the
      interval is None of one seed. Fillings without learning stand last, with no seeds.
    """
    rows = []
    for variant in order:
        if variant in found.networks:
            of_variant = found.networks[variant]
            by_seed = np.array([values.mean(axis=0) for values in of_variant.values()])
            rows.append(_row(variant, list(of_variant), len(found.names), by_seed))
    for filling, values in found.fillings.items():
        rows.append(_row(filling, [], len(found.names), values.mean(axis=0, keepdims=True)))
    return rows


def differences(found: Scores, order: list[str]) -> list[dict]:
    """Each variant minus the baseline, over the seeds that both have.

    Returns:
      Rows of `variant, metric, seeds, examples, difference, low, high, p, seeds_low, seeds_high`. The difference of an
      example is the mean over the paired seeds; `low, high, p` are `intervals.paired`'s over the examples, of which
      there are `examples`; `seeds_low, seeds_high` is Student's interval over the paired seeds, None of one.
    """
    rows, base = [], found.networks.get(plan.BASELINE, {})
    for variant in order:
        of_variant = found.networks.get(variant, {})
        seeds = [seed for seed in of_variant if seed in base]
        if variant == plan.BASELINE or not seeds:
            continue
        mine, theirs = (np.array([values[seed] for seed in seeds]) for values in (of_variant, base))
        for column, metric in enumerate(METRICS):
            pair = intervals.paired(mine[..., column].mean(axis=0), theirs[..., column].mean(axis=0))
            over_seeds = intervals.student((mine - theirs)[..., column].mean(axis=1)) or (None, None)
            row = {"variant": variant, "metric": metric, "seeds": _listed(seeds), "examples": len(found.names)}
            row |= {"difference": pair.difference, "low": pair.low, "high": pair.high, "p": pair.p}
            rows.append(row | {"seeds_low": over_seeds[0], "seeds_high": over_seeds[1]})
    return rows


def seed_differences(found: Scores, variant: str, metric: str) -> list[float]:
    """Variant minus baseline, the mean over examples, seed by seed."""
    base, column = found.networks.get(plan.BASELINE, {}), METRICS.index(metric)
    of_variant = found.networks.get(variant, {})
    return [float((of_variant[s] - base[s])[:, column].mean()) for s in of_variant if s in base]


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
