"""The optimizer of a run and its learning rate, as the sections `optim` and `finetune` of a config describe them."""

import jax
import optax
import optax.contrib

# Muon's updates are scaled to this root mean square, about that of Adam's, so that both take rates of one magnitude
# (Liu et al. 2025, arXiv 2502.16982, section 2.2).
_UPDATE_RMS = 0.2

_MOMENTUM = 0.95  # of Muon, as its authors have it; optim.b1 is that of the parameters that are left to Adam

_SMALLEST_MATRIX = 4  # A kernel with fewer outputs, the one of the last layer, is left to Adam.


def learning_rate(config) -> optax.Schedule:
    """Returns the schedule, a function of the step.

    It is a linear warm-up, then constant, a cosine to zero, or "trapezoid", constant and at last linear to zero. In
    the second phase it is constant.
    """
    optim, count = config.optim, config.train.steps
    finetune = optax.constant_schedule(config.finetune.lr)
    if not count:
        return finetune
    if optim.schedule == "cosine":
        first = optax.warmup_cosine_decay_schedule(0.0, optim.lr, optim.warmup_steps, count)
    else:
        first = optax.linear_schedule(0.0 if optim.warmup_steps else optim.lr, optim.lr, max(optim.warmup_steps, 1))
    if optim.schedule == "trapezoid":
        down = optax.linear_schedule(optim.lr, 0.0, optim.cooldown_steps)
        first = optax.join_schedules([first, down], [count - optim.cooldown_steps])
    return optax.join_schedules([first, finetune], [count]) if config.finetune.steps else first


def from_config(config) -> optax.GradientTransformation:
    """Returns the optimizer with its schedule, after optional clipping of the global gradient norm.

    "adam" is Adam. "muon" (Jordan et al. 2024) makes the momentum of each kernel, as a matrix of its windows by its
    outputs, orthogonal before it is added; biases, normalisations and the last layer are left to Adam with
    Nesterov's momentum.
    """
    optim, rate = config.optim, learning_rate(config)
    if optim.name == "muon":
        chosen = optax.contrib.muon(
            rate,
            beta=_MOMENTUM,
            adam_b1=optim.b1,
            adam_b2=optim.b2,
            eps=optim.eps,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=_UPDATE_RMS,
        )
    else:
        chosen = optax.adam(rate, b1=optim.b1, b2=optim.b2, eps=optim.eps)
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), chosen) if optim.clip_norm else chosen


def _matrices(params):
    """Returns how Muon reads each parameter as a matrix, and None for those of Adam."""

    def of(value):
        if value.ndim == 4 and value.shape[-1] >= _SMALLEST_MATRIX:
            return optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
        return None

    return jax.tree.map(of, params)
