"""The step functions: pure, of (state, batch); what is static is bound when they are made."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from pconv_jax.ops import compositing, losses
from pconv_jax.training import phases


def loss_terms(output, target, mask, features: Callable | None):
    """Returns the terms of the loss by name, each a scalar; without `features` those of images alone.

    Args:
      output, target: `[N, H, W, C]`, float32 in [0, 1].
      mask: `[N, H, W, 1]`, 1 = valid.
      features: images -> list of feature maps (VGG16), or None. Called once for the target, without gradient, and once
        for output and composite together.
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
    model,
    optimizer,
    weights: Callable,
    features: Callable | None,
    phase: phases.Phase,
    *,
    ema: float = 0.0,
    accumulate: int = 1,
):
    """Returns `train_step(state, batch, vgg16) -> (state, metrics)`, to be mapped over the axis `model.axis_name`.

    The batch is `image` uint8 `[B, H, W, C]` and `mask` uint8 `[B, H, W, 1]`. Gradients and metrics are means over
    all devices. Metrics: `loss`, each term raw and as `weighted/<term>`, `grad_norm`, `param_norm` after the
    update, and the number of `skipped` images, all float32.

    Args:
      model: the U-Net.
      optimizer: of optax.
      weights: step -> weight of each term.
      features: `(vgg16, images) -> list of feature maps`, where `vgg16` is the third argument of the step, or None.
        Parameters that are an argument, and not constants of the program, are neither copied nor folded by XLA.
      phase: what is held still.
      ema: decay of the average of the parameters; in the first steps less, `(1 + step) / (10 + step)`, so that the
        initial parameters are forgotten (as TensorFlow's ExponentialMovingAverage has it).
      accumulate: parts of the batch that are computed one after another. All terms are means over examples, so the
        gradient is the same; batch normalisation takes the statistics of each part.
    """

    def train_step(now, batch, vgg16):
        weight = weights(now.step)

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
            grads, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(now.params, batch_stats, *part)
            return (batch_stats, jax.tree.map(jnp.add, total, grads)), metrics

        examples = batch["image"], batch["mask"]
        if accumulate == 1:
            grads, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(now.params, now.batch_stats, *examples)
        else:
            parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), examples)
            start = now.batch_stats, jax.tree.map(jnp.zeros_like, now.params)
            (batch_stats, grads), metrics = lax.scan(add_part, start, parts)
            grads = jax.tree.map(lambda x: x / accumulate, grads)
            metrics = jax.tree.map(jnp.mean, metrics)
        if lax.axis_size(model.axis_name) > 1:  # on a CPU, XLA copies what a single device averages
            grads, metrics = lax.pmean((grads, metrics), model.axis_name)
        grads = phase.moving(grads)
        updates, opt_state = optimizer.update(grads, now.opt_state, now.params)
        params = optax.apply_updates(now.params, phase.moving(updates))  # Adam's momentum outlives the gradient
        average = now.ema
        if average is not None:
            decay = jnp.minimum(ema, (1 + now.step) / (10 + now.step))
            average = optax.incremental_update(params, average, 1.0 - decay)
        skipped = lax.psum(jnp.sum(batch["skipped"]), model.axis_name).astype(jnp.float32)
        metrics |= {"grad_norm": _norm(grads), "skipped": skipped}
        metrics["param_norm"] = _norm(params)  # after the update: no checkpoint holds what is not finite
        return now.replace(
            step=now.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=average
        ), metrics

    return train_step


def _norm(tree):
    """`optax.tree.norm`, which on a CPU writes all the squares out before it adds them."""
    return jnp.sqrt(optax.tree.vdot(tree, tree))


def make_predict(model):
    """Returns `predict(variables, image, mask) -> (output, composite)`: uint8 images in, float32 in [0, 1] out.

    Batch normalisation uses its running statistics, so that a prediction does not depend on its batch mates.
    """

    def predict(variables, image, mask):
        image = image.astype(jnp.float32) / 255.0
        output, _ = model.apply(variables, image, mask.astype(jnp.float32), train=False)
        return output, compositing.composite(image, jnp.clip(output, 0.0, 1.0), mask)

    return predict
