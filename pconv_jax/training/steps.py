"""Makes the training step and the prediction, pure functions of arrays, from a network, an optimizer and a phase."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from pconv_jax.ops import compositing, losses
from pconv_jax.training import phases


def loss_terms(output, target, mask, features: Callable | None):
    """Returns the terms of the loss by name, each a scalar. Without `features`, only the terms of images are computed.

    Args:
      output: the network's prediction, `[N, H, W, C]`, float32.
      target: the image, `[N, H, W, C]`, float32 in [0, 1].
      mask: `[N, H, W, 1]`, 1 = valid.
      features: takes images and returns a list of feature maps (VGG16), or None. It is called once for the target,
        without gradient, and once for output and composite together.
    """
    filled = compositing.composite(target, output, mask)
    terms = {name: term(output, target, mask, filled) for name, term in losses.IMAGE_TERMS.items()}
    if features is not None:
        of_target = lax.stop_gradient(features(target))
        both = features(jnp.concatenate([output, filled]))
        of_output, of_filled = [f[: len(output)] for f in both], [f[len(output) :] for f in both]
        terms |= {name: term(of_output, of_filled, of_target) for name, term in losses.FEATURE_TERMS.items()}
    return terms


def loss_weights(weights: dict[str, float], style_warmup_steps: int, step) -> dict:
    """Returns the weight of each term at a step. Those of the style terms rise linearly over the first steps.

    Args:
      weights: the final weight of each term.
      style_warmup_steps: number of steps over which the weights of the style terms rise; 0 for none.
      step: number of steps done, a Python integer or a scalar array.
    """
    if not style_warmup_steps:
        return weights
    fraction = jnp.minimum((step + 1) / style_warmup_steps, 1.0)
    return weights | {name: fraction * weights[name] for name in ("style_out", "style_comp")}


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    weights: Callable,
    features: Callable | None,
    phase: phases.Phase,
    *,
    ema: float = 0.0,
    accumulate: int = 1,
):
    """Makes the training step, a pure function that is to be mapped over the axis `model.axis_name`.

    Args:
      model: the U-Net.
      optimizer: an optax optimizer.
      weights: takes the number of steps done and returns the weight of each term.
      features: `(vgg16, images) -> list of feature maps`, where `vgg16` is the third argument of the step, or None.
        The parameters are an argument, because XLA would copy and fold constants of the program.
      phase: decides what is frozen.
      ema: decay of the average of the parameters. In the first steps it is `(1 + step) / (10 + step)` if that is less,
        so that the initial parameters are forgotten (as in TensorFlow's ExponentialMovingAverage).
      accumulate: number of equal parts of the batch that are computed one after another. All terms are means over
        examples, so the gradient is the same; batch normalisation uses the statistics of each part.

    Returns:
      `train_step(state, batch, vgg16) -> (state, metrics)`. The batch has `image` uint8 `[B, H, W, C]`, `mask` uint8
      `[B, H, W, 1]` and `skipped` int32 `[B]`. Gradients and metrics are means over all devices. The metrics are
      float32 scalars: `loss`, each term raw and as `weighted/<term>`, `grad_norm`, `param_norm` after the update, and
      the number of `skipped` images.
    """
    gradients = _make_gradients(model, features, phase, accumulate)

    def train_step(state, batch, vgg16):
        grads, metrics, batch_stats = gradients(state, batch, vgg16, weights(state.step))
        if lax.axis_size(model.axis_name) > 1:  # On a single CPU device, XLA would copy all gradients for the average.
            grads, metrics = lax.pmean((grads, metrics), model.axis_name)
        grads = phase.mask_frozen(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(
            state.params, phase.mask_frozen(updates)
        )  # Adam's momentum goes on when gradients are 0.
        average = state.ema
        if average is not None:
            decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
            average = optax.incremental_update(params, average, 1.0 - decay)
        skipped = lax.psum(jnp.sum(batch["skipped"]), model.axis_name).astype(jnp.float32)
        metrics |= {"grad_norm": _norm(grads), "skipped": skipped}
        # Computed after the update, so that parameters that are not finite are noticed before they are saved.
        metrics["param_norm"] = _norm(params)
        return state.replace(
            step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=average
        ), metrics

    return train_step


def _make_gradients(model, features, phase, accumulate):
    """Makes `gradients(state, batch, vgg16, weight) -> (grads, metrics, batch_stats)` of one device."""

    def gradients(state, batch, vgg16, weight):
        def objective(params, batch_stats, image, mask):
            image, mask = image.astype(jnp.float32) / 255.0, mask.astype(jnp.float32)
            variables = {"params": params, "batch_stats": batch_stats}
            (output, _), updates = model.apply(
                variables, image, mask, train=True, freeze_encoder=phase.freeze_statistics, mutable=["batch_stats"]
            )
            terms = loss_terms(output, image, mask, features and functools.partial(features, vgg16))
            weighted = {name: weight[name] * term for name, term in terms.items()}
            total = sum(weighted.values())
            metrics = {"loss": total, **terms, **{f"weighted/{name}": term for name, term in weighted.items()}}
            return total, (metrics, updates.get("batch_stats", {}))

        def add_part(carry, part):
            batch_stats, total = carry
            grads, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(state.params, batch_stats, *part)
            return (batch_stats, jax.tree.map(jnp.add, total, grads)), metrics

        examples = batch["image"], batch["mask"]
        if accumulate == 1:
            differentiate = jax.grad(objective, has_aux=True)
            grads, (metrics, batch_stats) = differentiate(state.params, state.batch_stats, *examples)
            return grads, metrics, batch_stats
        parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), examples)
        start = state.batch_stats, jax.tree.map(jnp.zeros_like, state.params)
        (batch_stats, grads), metrics = lax.scan(add_part, start, parts)
        return jax.tree.map(lambda x: x / accumulate, grads), jax.tree.map(jnp.mean, metrics), batch_stats

    return gradients


def _norm(tree):
    """Returns the norm of all values, faster on a CPU than `optax.tree.norm`, which stores the squares first."""
    return jnp.sqrt(optax.tree.vdot(tree, tree))


def make_predict(model):
    """Returns `predict(variables, image, mask) -> (output, composite)` from uint8 images to float32, where 1 is white.

    The composite is in [0, 1], the output is not clipped. Batch normalisation uses its running statistics, so a
    prediction does not depend on the other examples of its batch.
    """

    def predict(variables, image, mask):
        image = image.astype(jnp.float32) / 255.0
        output, _ = model.apply(variables, image, mask.astype(jnp.float32), train=False)
        return output, compositing.composite(image, jnp.clip(output, 0.0, 1.0), mask)

    return predict
