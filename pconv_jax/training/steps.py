"""Makes the training step and the prediction, pure functions of arrays, from a network, an optimizer and a phase."""

import contextlib
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from pconv_jax.ops import compositing, losses, pyramid
from pconv_jax.training import phases


def decode(image, mask):
    """Converts a batch to the values that the network takes.

    Args:
      image: uint8 images; or grids, float32 in the units of the data, with NaN where no value is known.
      mask: uint8 `[N, H, W, 1]`, 1 = valid.

    Returns:
      `(image, mask, known)`: float32, images in [0, 1], grids in their units and 0 where not known; the mask, which is
      0 also where a channel of a grid is not known; for grids float32 `[N, H, W, C]`, 1 = known, and None for images.
    """
    mask = mask.astype(jnp.float32)
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255.0, mask, None
    known = ~jnp.isnan(image)
    return jnp.where(known, image, 0), mask * jnp.all(known, axis=-1, keepdims=True), known.astype(jnp.float32)


def loss_terms(output, target, mask, features: Callable | None, optional: Sequence[str] = (), weight=None):
    """Returns the terms of the loss by name, each a scalar. Without `features`, only the terms of images are computed.

    Args:
      output: the network's prediction, `[N, H, W, C]`, float32.
      target: the image, `[N, H, W, C]`, float32 in [0, 1], or standardised grids.
      mask: `[N, H, W, 1]`, 1 = valid.
      features: takes images and returns a list of feature maps (VGG16), or None. It is called once for the target,
        without gradient, and once for output and composite together.
      optional: names of the terms of `losses.OPTIONAL_TERMS` to compute.
      weight: weight of each element, broadcast to the images, or None.
    """
    filled = compositing.composite(target, output, mask)
    of_images = losses.IMAGE_TERMS | {name: losses.OPTIONAL_TERMS[name] for name in optional}
    terms = {name: term(output, target, mask, filled, weight) for name, term in of_images.items()}
    if features is not None:
        of_target = lax.stop_gradient(features(target))
        both = features(jnp.concatenate([output, filled]))
        of_output, of_filled = [f[: len(output)] for f in both], [f[len(output) :] for f in both]
        terms |= {name: term(of_output, of_filled, of_target) for name, term in losses.FEATURE_TERMS.items()}
    return terms


def pyramid_terms(network: Callable, image, mask, levels: int, terms: Callable) -> dict:
    """Returns the terms of a network that fills from coarse to fine, as weighted means over the levels of a pyramid.

    Each level is trained on the input that it gets when images are filled, the enlarged result of the next coarser
    level, and is compared with the image at its own size. A level counts half as much as the next finer one.

    Args:
      network: `(image, mask, guess) -> output`.
      image: `[N, H, W, C]`, float32 in [0, 1], complete.
      mask: `[N, H, W, 1]`, 1 = valid.
      levels: number of levels, at least 1.
      terms: `(output, target, mask) -> dict of scalars` for one level.
    """
    outputs = pyramid.coarse_to_fine(network, image, mask, levels)
    masks = [level_mask for _, level_mask in pyramid.levels(image, mask, levels)]
    targets = [target for target, _ in pyramid.levels(image, jnp.ones_like(mask), levels)]
    rows = [terms(*level) for level in zip(outputs, targets, masks, strict=True)]
    fractions = [0.5**level / sum(0.5**k for k in range(levels)) for level in range(levels)]
    return {name: sum(w * row[name] for w, row in zip(fractions, rows, strict=True)) for name in rows[0]}


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
    levels: int = 0,
    optional_terms: Sequence[str] = (),
    precision: str = "default",
    area=None,
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
      levels: number of levels of the image pyramid that the network is trained in (`pyramid_terms`); 0 for none.
      optional_terms: names of the terms of `losses.OPTIONAL_TERMS` to compute.
      precision: precision of float32 convolutions, by a name of JAX: "tensorfloat32", "float32", or "default" for that
        of the device (TF32 on NVIDIA's GPUs since Ampere) or of the variable JAX_DEFAULT_MATMUL_PRECISION.
      area: for grids, weights of the cells in the loss (`losses.area_weights`); None for equal weights.

    Returns:
      `train_step(state, batch, vgg16) -> (state, metrics)`. The batch has `image` uint8 `[B, H, W, C]`, or float32 for
      grids (`decode`), `mask` uint8 `[B, H, W, 1]` and `skipped` int32 `[B]`. The loss of grids is that of values in
      units of `model.input_std`, and does not count values that are not known. Gradients and metrics are means over
      all devices. The metrics are float32 scalars: `loss`, each term raw and as `weighted/<term>`, `grad_norm`,
      `param_norm` after the update, and the number of `skipped` images.
    """
    terms = functools.partial(_terms, model, features, phase, levels, tuple(optional_terms), area)
    gradients = _make_gradients(terms, accumulate)

    def train_step(state, batch, vgg16):
        with contextlib.nullcontext() if precision == "default" else jax.default_matmul_precision(precision):
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


def _terms(model, features, phase, levels, optional_terms, area, params, batch_stats, image, mask, vgg16):
    """Returns `(terms, batch_stats)` of a batch: the raw terms of the loss and the updated running statistics."""
    statistics = [batch_stats]
    image, mask, known = decode(image, mask)

    def network(*arguments):
        variables = {"params": params, "batch_stats": statistics[-1]}
        options = {"train": True, "freeze_encoder": phase.freeze_statistics, "mutable": ["batch_stats"]}
        (output, _), updates = model.apply(variables, *arguments, **options)
        statistics.append(updates.get("batch_stats", {}))
        return output

    def terms(output, target, mask, weight=None):
        maps = features and functools.partial(features, vgg16)
        return loss_terms(output, target, mask, maps, optional_terms, weight)

    if levels:
        return pyramid_terms(network, image, mask, levels, terms), statistics[-1]
    output = network(image, mask)
    if known is None:
        return terms(output, image, mask), statistics[-1]
    weight = known if area is None else known * area
    output, image = (compositing.standardise(x, model.input_mean, model.input_std) for x in (output, image))
    return terms(output, image, mask, weight), statistics[-1]


def _make_gradients(terms, accumulate):
    """Makes `gradients(state, batch, vgg16, weight) -> (grads, metrics, batch_stats)` of one device."""

    def gradients(state, batch, vgg16, weight):
        def objective(params, batch_stats, image, mask):
            raw, batch_stats = terms(params, batch_stats, image, mask, vgg16)
            weighted = {name: weight[name] * term for name, term in raw.items()}
            total = sum(weighted.values())
            metrics = {"loss": total, **raw, **{f"weighted/{name}": term for name, term in weighted.items()}}
            return total, (metrics, batch_stats)

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


def make_predict(model, levels: int = 0):
    """Returns `predict(variables, image, mask) -> (output, composite)` from uint8 images to float32, where 1 is white.

    The composite is in [0, 1], the output is not clipped. Both are in the units of the data for grids, float32
    (`decode`). Batch normalisation uses its running statistics, so a
    prediction does not depend on the other examples of its batch.

    Args:
      model: the network.
      levels: number of levels of the image pyramid in which it is applied from coarse to fine; 0 for none.
    """

    def predict(variables, image, mask):
        image, mask, known = decode(image, mask)

        def network(*arguments):
            return model.apply(variables, *arguments, train=False)[0]

        output = pyramid.coarse_to_fine(network, image, mask, levels)[0] if levels else network(image, mask)
        fill = jnp.clip(output, 0.0, 1.0) if known is None else output
        return output, compositing.composite(image, fill, mask)

    return predict
