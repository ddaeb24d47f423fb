"""The training state, which holds arrays only, and its initial value."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """The arrays that a run carries from step to step and that a checkpoint holds.

    Attributes:
      step: int32 scalar, the number of steps done.
      params: parameters of the U-Net.
      batch_stats: running statistics of batch normalisation; empty for other norms.
      opt_state: state of the optax optimizer.
      ema: exponential moving average of `params`, or None where `optim.ema` is 0.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any

    @property
    def eval_variables(self):
        """Returns the variables to predict with: the averaged parameters if there are any, else `params`."""
        return {"params": self.params if self.ema is None else self.ema, "batch_stats": self.batch_stats}


def create(
    model: nn.Module, optimizer: optax.GradientTransformation, *, size: tuple[int, int], seed: int, average: bool
):
    """Returns the state before the first step.

    Args:
      model: the U-Net.
      optimizer: an optax optimizer.
      size: height and width of a training example.
      seed: seed of the initial parameters.
      average: whether to keep an exponential moving average of the parameters.
    """

    def init(key):
        image = jnp.zeros((1, *size, model.channels))
        guess = (image,) if model.guess else ()
        variables = model.init(key, image, jnp.ones((1, *size, 1)), *guess, train=False)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            ema=jax.tree.map(jnp.copy, params) if average else None,
        )

    return jax.jit(init)(jax.random.key(seed))


def with_parameters(state: TrainState, params, batch_stats) -> TrainState:
    """Replaces the parameters and statistics of a state before the first step; the average starts at them.

    Args:
      state: the state before the first step.
      params: the new parameters.
      batch_stats: the new running statistics.

    Returns:
      The state with them.
    """
    return state.replace(params=params, batch_stats=batch_stats, ema=None if state.ema is None else params)
