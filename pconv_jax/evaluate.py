"""Evaluation of a run on its fixed images and masks, beside fillings without learning.

python -m pconv_jax.evaluate --run=runs/quickstart
"""

import os

import numpy as np
from absl import app, flags, logging

from pconv_jax.evaluation import baselines, scores, tables
from pconv_jax.training import build, checkpoint, parallel, reporting, rundir, sheets, state, steps
from pconv_jax.training import config as config_rules

_RUN = flags.DEFINE_string("run", None, "Run directory that training wrote.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint to evaluate.")


class Evaluation:
    """The evaluation set of a config and the compiled network; used at every checkpoint and at the end."""

    def __init__(self, config, source):
        self.config, self.source = config, source
        self._predict = parallel.map_predict(steps.make_predict(build.unet_model(config)))
        self._names = source.source.names

    def batches(self):
        """The fixed set, from its start."""
        return build.evaluation_batches(self.config, self.source)

    def network(self, now: state.TrainState) -> list[dict]:
        """Records of the network's composites (`scores.network`)."""
        size = self.config.eval.batch_size
        return scores.network(self._predict, now.eval_variables, self.batches(), size, self._names)

    def baseline(self, method: str) -> list[dict]:
        """Records of one of `baselines.BASELINES` on the same images and masks."""
        return scores.baseline(method, self.batches(), self._names)

    def sheet(self, now: state.TrainState, count: int) -> np.ndarray:
        """A picture of the first `count` examples: masked, prediction, composite, original."""
        batch = next(self.batches())
        full = {k: scores.fill_up(batch[k], self.config.eval.batch_size) for k in ("image", "mask")}
        output, _ = self._predict(now.eval_variables, full["image"], full["mask"])
        shown = min(count, len(batch["image"]))
        return sheets.samples(batch["image"][:shown], batch["mask"][:shown], np.asarray(output)[:shown])


def report(evaluation: Evaluation, now: state.TrainState, workdir: str, name: str) -> list[dict]:
    """Scores the network and the baselines, prints the table and writes `eval/<name>.{json,csv,md}` and a sheet.

    Returns:
      All records.
    """
    records = evaluation.network(now)
    for method in baselines.BASELINES:
        records += evaluation.baseline(method)
    about = {
        "step": int(now.step),
        "parameters_sha256": checkpoint.digest(now.params),
        "config": evaluation.config.to_dict(),
        "versions": rundir.versions(),
    }
    directory = os.path.join(workdir, "eval")
    tables.write(directory, name, records, about)
    sheets.save(os.path.join(directory, f"{name}.png"), evaluation.sheet(now, evaluation.config.eval.batch_size))
    rows = tables.summarise(records)
    print(f"\n{evaluation.config.name} at step {int(now.step)}, {evaluation.config.eval.examples} composites\n")
    print(tables.markdown(rows))
    logging.info("parameters sha256 %s", about["parameters_sha256"])
    logging.info("written: %s.{json,csv,md,png}", os.path.join(directory, name))
    return records


def main(argv):
    """Restores a checkpoint of a run and reports on it."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}: use --run=DIR")
    reporting.quiet_libraries()
    try:
        config = rundir.read_config(_RUN.value)
        config_rules.validate(config)
        parallel.check_batch("eval.batch_size", config.eval.batch_size)
        _, source = build.image_sources(config)
        with checkpoint.manager(_RUN.value) as checkpoints:
            step = checkpoints.best_step() if _CHECKPOINT.value == "best" else None
            now = checkpoint.restore(checkpoints, state.shapes(config), step)
        if now is None:
            raise ValueError(f"{_RUN.value} has no checkpoint yet: wait for the first one, or train again")
        report(Evaluation(config, source), parallel.replicate(now), _RUN.value, _CHECKPOINT.value)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    flags.mark_flag_as_required("run")
    app.run(main)
