"""A network that fills gaps of climate data: temperature anomalies on a grid of the earth, 36 x 72 cells.

    python -m pconv_jax.tools.synthetic_climate --months=1200 --grid=36,72 --out=ensemble.nc
    python -m pconv_jax.main --config=experiments/climate.py
    python -m pconv_jax.infill --run=runs/climate --data=ensemble.nc --variable=tas --out=filled.nc

It learns from complete months of a simulation, hidden by the gaps of observations; docs/climate.md tells how to use
data of your own. With compilation it takes 2 min 23 s of CPU time. On the last tenth of the months, which are held out,
the error of the hidden cells is 0.77 K (interpolation: 1.03 K, zero anomaly: 1.84 K).
"""

from experiments import default


def get_config():
    """Returns the config of a run."""
    config = default.get_config()
    config.name = "climate"

    config.data.source = "netcdf"
    config.data.path = "ensemble.nc"
    config.data.variable = "tas_complete"
    config.data.grid = (36, 72)
    config.data.flip = False

    for masks in (config.masks, config.eval.masks):
        masks.kind = "netcdf"
        masks.path = "ensemble.nc"
        masks.variable = "tas"
    config.masks.area = (0.0, 1.0)

    config.model.channels = 1
    config.model.depth = 3
    config.model.width = 16
    config.model.max_width = 64
    config.model.kernels = (5, 5, 3)
    config.model.padding = "circular"
    config.model.any_size = True

    config.loss.area_weights = True
    config.loss.weights.tv = 0.0

    config.optim.lr = 2e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100

    config.train.steps = 1_500
    config.train.batch_size = 16
    config.train.checkpoint_every = 500
    config.train.sample_every = 1_000
    config.finetune.steps = 0

    config.eval.buckets = False
    config.eval.examples = 120
    config.eval.batch_size = 24
    return config
