"""The step functions: pure, of (state, batch); what is static is bound when they are made."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax import lax

from pconv_jax.ops import composite, losses
from pconv_jax.training import build, state


def loss_terms(output, target, mask, features: Callable | None):
    """The terms of `losses.TERMS` as a dict of scalars; without `features` no perceptual and style terms.

    Args:
      output, target: `[N, H, W, C]`, float32 in [0, 1].
      mask: `[N, H, W, 1]`, 1 = valid.
      features: images -> list of feature maps (VGG16), or None.
    """
    filled = composite.composite(target, output, mask)
    terms = {
        "valid": losses.valid(output, target, mask),
        "hole": losses.hole(output, target, mask),
        "tv": losses.total_variation(filled, mask),
    }
    if features is not None:
        of_target = lax.stop_gradient(features(target))
        both = features(jnp.concatenate([output, filled]))
        of_output, of_filled = [f[: len(output)] for f in both], [f[len(output) :] for f in both]
        terms["perceptual"] = losses.perceptual(of_output, of_filled, of_target)
        terms["style_out"] = losses.style(of_output, of_target)
        terms["style_comp"] = losses.style(of_filled, of_target)
    return terms


def from_config(config, features: Callable | None):
    """The training step of a config; `features` as in `loss_terms`."""
    weights = config.loss.weights.to_dict()
    return make_train_step(build.unet_model(config), state.optimizer(config), weights, features, config.optim.ema)


def make_train_step(model, optimizer, weights: Mapping[str, float], features: Callable | None, ema: float):
    """Returns `train_step(state, batch) -> (state, metrics)`, to be mapped over the axis `model.axis_name`.

    The batch is `image` uint8 `[B, H, W, C]` and `mask` uint8 `[B, H, W, 1]`. Gradients and metrics are means over
    all devices. Metrics: `loss`, each raw term, `grad_norm`, `param_norm` after the
    update, and the number of `skipped` images, all float32.
    """

    def train_step(now, batch):
        image = batch["image"].astype(jnp.float32) / 255.0
        mask = batch["mask"].astype(jnp.float32)

        def objective(params):
            variables = {"params": params, "batch_stats": now.batch_stats}
            (output, _), updates = model.apply(variables, image, mask, train=True, mutable=["batch_stats"])
            terms = loss_terms(output, image, mask, features)
            total = sum(weights[name] * term for name, term in terms.items())
            return total, (terms, updates.get("batch_stats", {}))

        (total, (terms, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(now.params)
        grads, total, terms = lax.pmean((grads, total, terms), model.axis_name)
        updates, opt_state = optimizer.update(grads, now.opt_state, now.params)
        params = optax.apply_updates(now.params, updates)
        average = now.ema
        if average is not None:
            average = optax.incremental_update(params, average, 1.0 - ema)
        skipped = lax.psum(jnp.sum(batch["skipped"]), model.axis_name).astype(jnp.float32)
        metrics = {"loss": total, **terms, "grad_norm": optax.tree.norm(grads), "skipped": skipped}
        metrics["param_norm"] = optax.tree.norm(params)  # after the update: no checkpoint holds what is not finite
        return now.replace(
            step=now.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=average
        ), metrics

    return train_step


def make_predict(model):
    """Returns `predict(variables, image, mask) -> (output, composite)`: uint8 images in, float32 in [0, 1] out.

    Batch normalisation uses its running statistics, so that a prediction does not depend on its batch mates.
    """

    def predict(variables, image, mask):
        image = image.astype(jnp.float32) / 255.0
        output, _ = model.apply(variables, image, mask.astype(jnp.float32), train=False)
        return output, composite.composite(image, jnp.clip(output, 0.0, 1.0), mask)

    return predict
