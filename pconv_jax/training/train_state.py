"""The training state and how it starts: arrays only."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from pconv_jax.training import build


@flax.struct.dataclass
class TrainState:
    """All that a run carries from step to step, and all that a checkpoint holds.

    Attributes:
      step: int32 scalar, the number of steps done.
      params: of the U-Net.
      batch_stats: running statistics of batch normalisation; empty for other norms.
      opt_state: of optax.
      ema: exponential moving average of `params`, or None where `optim.ema` is 0.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any

    @property
    def eval_variables(self):
        """What evaluation and inpainting apply: the averaged parameters where there are any."""
        return {"params": self.params if self.ema is None else self.ema, "batch_stats": self.batch_stats}


def from_config(config) -> TrainState:
    """The state before the first step, a function of the config and its seed."""
    model, adam, size = build.unet_model(config), optimizer(config), config.data.size

    def init(key):
        image = jnp.zeros((1, size, size, model.channels))
        variables = model.init(key, image, jnp.ones((1, size, size, 1)), train=False)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=adam.init(params),
            ema=jax.tree.map(jnp.copy, params) if config.optim.ema else None,
        )

    return jax.jit(init)(jax.random.key(config.seed))


def with_parameters(fresh: TrainState, params, batch_stats) -> TrainState:
    """A state before the first step with given parameters and statistics; the average starts at them."""
    return fresh.replace(params=params, batch_stats=batch_stats, ema=None if fresh.ema is None else params)


def shapes(config) -> TrainState:
    """The shapes and dtypes of `from_config`, without computing it: what a checkpoint is restored into."""
    return jax.eval_shape(lambda: from_config(config))


def learning_rate(config) -> optax.Schedule:
    """The schedule: linear warm-up, then constant or cosine to zero; in the second phase constant. Steps -> rate."""
    optim, steps = config.optim, config.train.steps
    finetune = optax.constant_schedule(config.finetune.lr)
    if not steps:
        return finetune
    if optim.schedule == "cosine":
        first = optax.warmup_cosine_decay_schedule(0.0, optim.lr, optim.warmup_steps, steps)
    else:
        first = optax.linear_schedule(0.0 if optim.warmup_steps else optim.lr, optim.lr, max(optim.warmup_steps, 1))
    return optax.join_schedules([first, finetune], [steps]) if config.finetune.steps else first


def optimizer(config) -> optax.GradientTransformation:
    """Adam with the schedule, after optional clipping of the global gradient norm."""
    adam = optax.adam(learning_rate(config), b1=config.optim.b1, b2=config.optim.b2, eps=config.optim.eps)
    return optax.chain(optax.clip_by_global_norm(config.optim.clip_norm), adam) if config.optim.clip_norm else adam
