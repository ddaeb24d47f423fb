"""Makes the objects that a config describes: sources, batches, the network, the optimizer, and the whole experiment.

Nothing below this file reads a config, except the rules (validation.py) and the run directory (rundir.py).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging

from pconv_jax import errors
from pconv_jax.data import grid_source, masks, pipeline, sources
from pconv_jax.models import unet, vgg
from pconv_jax.ops import losses
from pconv_jax.ops.cpu import dispatch
from pconv_jax.training import example_settings, optimizers, parallel, phases, steps, train_state

EVALUATION_MASKS = "evaluation masks"  # The key of their fingerprint in data.json.


def image_sources(config, images: tuple | None = None) -> tuple[sources.DecodedSource, sources.DecodedSource]:
    """Returns `(train, evaluation)`, two decoded sources that share no photograph, or two sources of grids.

    Args:
      config: the config of the run.
      images: `(train, evaluation)`, encoded images that the caller has listed; None to list those of `data.source`.

    Raises:
      UserError: a folder or file is missing, empty or too small to split, a TFDS dataset is not prepared, or grids do
        not have `model.channels`.
    """
    data = config.data
    pair = sources.SOURCES[data.source].load(data) if images is None else images
    if sources.SOURCES[data.source].grids:
        grid_source.check(pair[0], config.model.channels, config.model.input_mean, config.model.input_std)
        return pair
    settings = config.model.channels, data.cache, data.max_pixels
    return tuple(sources.DecodedSource(source, *settings) for source in pair)


def check_masks(config):
    """Draws one mask for training and one per bucket for evaluation, so that wrong settings fail before training.

    Raises:
      UserError: a mask folder is missing or empty, or no mask has the wanted area.
    """
    size = example_settings.size(config)
    train, evaluation = example_settings.train_masks(config), example_settings.evaluation_masks(config)
    areas = example_settings.evaluation_areas(config)
    areas_by_use = ((train, [train.area], config.seed), (evaluation, areas, config.eval.seed))
    for family, areas, seed in areas_by_use:
        if family.kind == "folder":
            masks.check_folder(family, areas, size)
        for area in areas:
            masks.draw(dataclasses.replace(family, area=area), seed, 0, 0, size)


def fingerprints(config, train_source, evaluation_source) -> dict[str, str]:
    """Returns a fingerprint of each input of a run by its use, so that a resume on other data is refused.

    Images and masks are identified by the names and sizes of their files, VGG16's weights by content.

    Args:
      config: the config of the run.
      train_source: decoded training images.
      evaluation_source: decoded evaluation images.
    """
    result = {"train": train_source.fingerprint(), "evaluation": evaluation_source.fingerprint()}
    if config.masks.kind in masks.FROM_FILES:
        result["train masks"] = masks.FROM_FILES[config.masks.kind](example_settings.train_masks(config))
    result |= evaluation_masks_fingerprint(config)
    if config.loss.vgg16_weights:
        with open(config.loss.vgg16_weights, "rb") as file:
            result["VGG16 weights"] = f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return result


def evaluation_masks_fingerprint(config) -> dict[str, str]:
    """Returns the fingerprint of the files of the evaluation's masks by its use, or {} if masks are drawn."""
    if config.eval.masks.kind not in masks.FROM_FILES:
        return {}
    return {EVALUATION_MASKS: masks.FROM_FILES[config.eval.masks.kind](example_settings.evaluation_masks(config))}


def train_batches(config, source, start):
    """Returns an iterator over this host's share of the training batches.

    Args:
      config: the config of the run.
      source: decoded training images.
      start: number of batches to skip.
    """
    return pipeline.train_batches(
        source,
        example_settings.train_view(config),
        example_settings.train_masks(config),
        seed=config.seed,
        batch_size=config.train.batch_size // parallel.shard()[1],
        start=start,
        shard=parallel.shard(),
        threads=config.data.threads,
        workers=config.data.workers,
    )


def evaluation_set(config, source) -> pipeline.EvaluationSet:
    """Returns the examples that a run is scored on.

    Args:
      config: the config; the examples follow from its sections `eval` and `data` alone.
      source: the decoded evaluation images.
    """
    return pipeline.EvaluationSet(
        source,
        example_settings.evaluation_view(config),
        example_settings.evaluation_masks(config),
        config.eval.seed,
        config.eval.examples,
        example_settings.evaluation_areas(config),
    )


def unet_model(config) -> unet.UNet:
    """Returns the network of `config.model`, its batch normalisation synchronised over the devices."""
    return unet.from_section(config.model, parallel.AXIS)


def implementation(model) -> str:
    """Returns which implementation computes the convolutions in this process, one of `dispatch.IMPLS`.

    Args:
      model: `config.model`.
    """
    if jax.default_backend() != "cpu":
        return "xla"
    if model.conv_impl == "onednn" and not dispatch.onednn_usable(model.dtype):
        return "auto"
    return model.conv_impl


def vgg16_features(config):
    """Returns `(features, params)`, where `features(params, images)` computes VGG16's feature maps.

    It is `(None, {})` if `loss.vgg16_weights` is empty: the terms that need them are off, and the log reports it.

    Raises:
      UserError: the file does not exist or does not hold VGG16's weights.
    """
    if not config.loss.vgg16_weights:
        logging.info("no loss.vgg16_weights: the perceptual and style terms are off")
        return None, {}
    module, params = vgg.load(config.loss.vgg16_weights, jnp.dtype(config.model.dtype), config.model.conv_impl)

    def features(params, images):
        return module.apply({"params": params}, images)

    return jax.checkpoint(features) if config.model.remat else features, params


def initial_state(config) -> train_state.TrainState:
    """Returns the state before the first step, a function of the config and its seed."""
    return train_state.create(unet_model(config), optimizers.from_config(config), **_state_options(config))


def state_shapes(config) -> train_state.TrainState:
    """Returns the shapes and dtypes of the state, without computing it, to restore a checkpoint into."""
    with jax.enable_x64(False):  # Checkpoints have 32 bits, whatever another program of the process sets.
        return jax.eval_shape(lambda: initial_state(config))


def _area(config, source):
    """Returns the weights of the cells of a grid in the loss, or None for equal weights."""
    if not config.loss.area_weights or source is None:
        return None
    if source.latitude is None or source.latitude.ndim != 1:
        raise errors.UserError(
            "loss.area_weights is True and the data have no latitude for each row: add the coordinate to the file, or "
            "set --config.loss.area_weights=False"
        )
    return losses.area_weights(source.latitude)


def _state_options(config):
    return {"size": example_settings.size(config), "seed": config.seed, "average": bool(config.optim.ema)}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All the objects of a training run, made once from its config (`experiment`).

    Attributes:
      name: name of the experiment.
      init_from: run directory or checkpoint that gives the initial parameters; empty for none.
      model: the U-Net.
      create_state: a function without arguments that returns the state before the first step.
      learning_rate: the schedule, a function of the step.
      phases: the phases of the run, in order.
      make_step: takes a phase and returns its training step (`steps.make_train_step`).
      vgg16_params: parameters of VGG16, the third argument of the step.
      batch_size: training examples per step, over all devices.
      intervals: number of steps between log lines ("log"), checkpoints ("checkpoint") and image grids ("sample").
      pyramid_levels: number of levels in which the network fills from coarse to fine; 0 for none.
      samples: number of examples on an image grid.
      max_to_keep: number of newest checkpoints to keep, beside the best.
      eval_batch_size: examples per batch in evaluations.
      threads: number of threads that prepare batches.
      train_source: decoded training images, or grids; None if made without images, as are the next two.
      train_batches: takes the number `start` of batches to skip and returns an iterator over this host's batches.
      evaluation_set: the examples that the run is scored on.
      grids: whether examples are grids of the earth, and not photographs.
    """

    name: str
    init_from: str
    model: unet.UNet
    create_state: Callable[[], train_state.TrainState]
    learning_rate: optax.Schedule
    phases: tuple[phases.Phase, ...]
    make_step: Callable[[phases.Phase], Callable]
    vgg16_params: Any
    batch_size: int
    intervals: Mapping[str, int]
    pyramid_levels: int
    samples: int
    max_to_keep: int
    eval_batch_size: int
    threads: int
    train_source: sources.DecodedSource | grid_source.GridSource | None = None
    train_batches: Callable[[int], Iterator] | None = None
    evaluation_set: pipeline.EvaluationSet | None = None
    grids: bool = False


def experiment(config, train_source=None, evaluation_source=None) -> Experiment:
    """Makes all objects of a run from its config, which nothing reads from then on.

    Args:
      config: validated (training/validation.py).
      train_source: decoded training images (`image_sources`), or None to compute steps on other batches.
      evaluation_source: decoded evaluation images, or None.

    Raises:
      UserError: the file of VGG16's weights does not exist or holds something else.
    """
    model, optimizer = unet_model(config), optimizers.from_config(config)
    features, vgg16_params = vgg16_features(config)
    make_step = functools.partial(
        steps.make_train_step,
        model,
        optimizer,
        functools.partial(steps.loss_weights, config.loss.weights.to_dict(), config.loss.style_warmup_steps),
        features,
        ema=config.optim.ema,
        accumulate=config.train.accumulate,
        levels=config.train.pyramid_levels,
        optional_terms=tuple(name for name in losses.OPTIONAL_TERMS if config.loss.weights[name]),
        precision=config.train.matmul_precision,
        area=_area(config, train_source),
    )
    return Experiment(
        name=config.name,
        init_from=config.init_from,
        model=model,
        create_state=functools.partial(train_state.create, model, optimizer, **_state_options(config)),
        learning_rate=optimizers.learning_rate(config),
        phases=phases.make(
            config.train.steps,
            config.finetune.steps,
            freeze_statistics=config.finetune.freeze_statistics,
            freeze_affine=config.finetune.freeze_affine,
        ),
        make_step=make_step,
        vgg16_params=vgg16_params,
        batch_size=config.train.batch_size,
        intervals={
            "log": config.train.log_every,
            "checkpoint": config.train.checkpoint_every,
            "sample": config.train.sample_every,
        },
        pyramid_levels=config.train.pyramid_levels,
        samples=config.train.samples,
        max_to_keep=config.train.max_to_keep,
        eval_batch_size=config.eval.batch_size,
        threads=config.data.threads,
        train_source=train_source,
        train_batches=None if train_source is None else functools.partial(train_batches, config, train_source),
        evaluation_set=None if evaluation_source is None else evaluation_set(config, evaluation_source),
        grids=sources.SOURCES[config.data.source].grids,
    )
