"""From a config to the objects it describes: sources, batches, the model. Training and evaluation share these."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
from absl import logging

from pconv_jax.data import mask_folder, masks, pipeline, sources
from pconv_jax.models import unet, vgg
from pconv_jax.training import parallel, validation

EVALUATION_MASKS = "evaluation masks"  # in data.json


def image_sources(config) -> tuple[sources.DecodedSource, sources.DecodedSource]:
    """`(train, evaluation)`, decoded, and apart by photograph.

    Raises:
      ValueError: a folder that is missing, empty, or too small to split; a TFDS dataset that is not prepared.
    """
    data = config.data
    pair = sources.SOURCES[data.source].load(data)
    settings = config.model.channels, data.cache, data.max_pixels
    return tuple(sources.DecodedSource(source, *settings) for source in pair)


def check_masks(config):
    """Draws one mask of each use, and so finds a mask folder that is missing or an area that cannot be had.

    Raises:
      ValueError: says which.
    """
    size = (config.data.size, config.data.size)
    train, evaluation = validation.train_masks(config), validation.evaluation_masks(config)
    for family, areas, seed in ((train, [train.area], config.seed), (evaluation, pipeline.BUCKETS, config.eval.seed)):
        if family.kind == "folder":
            masks.check_folder(family, areas, size)
        for area in areas:
            masks.draw(dataclasses.replace(family, area=area), seed, 0, 0, size)


def fingerprints(config, train_source, evaluation_source) -> dict[str, str]:
    """Of all that a run is fed with, by use, to notice that it goes on with something else (rundir.claim).

    Images and masks by the names and sizes of their files, VGG16's weights by content.
    """
    found = {"train": train_source.source.fingerprint(), "evaluation": evaluation_source.source.fingerprint()}
    if config.masks.kind == "folder":
        found["train masks"] = mask_folder.fingerprint(config.masks.path)
    found |= evaluation_masks_fingerprint(config)
    if config.loss.vgg16_weights:
        with open(config.loss.vgg16_weights, "rb") as file:
            found["VGG16 weights"] = f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return found


def evaluation_masks_fingerprint(config) -> dict[str, str]:
    """Of the evaluation's mask folder, by its use; empty where masks are drawn."""
    if config.eval.masks.kind != "folder":
        return {}
    return {EVALUATION_MASKS: mask_folder.fingerprint(config.eval.masks.path)}


def train_view(config) -> pipeline.View:
    """How training examples are cut from photographs."""
    data = config.data
    return pipeline.View(data.size, tuple(data.crop_scale), data.flip, data.rotate, data.permute_channels)


def train_batches(config, source, start):
    """This host's share of the batches from step `start` on, to be moved to its devices."""
    return pipeline.train_batches(
        source,
        train_view(config),
        validation.train_masks(config),
        seed=config.seed,
        batch_size=config.train.batch_size // parallel.shard()[1],
        start=start,
        shard=parallel.shard(),
        threads=config.data.threads,
        workers=config.data.workers,
    )


def evaluation_batches(config, source):
    """The fixed evaluation set: the same for every run with the same `eval`, `data` and photographs."""
    return pipeline.evaluation_batches(
        source,
        **_evaluation(config),
        batch_size=config.eval.batch_size,
        threads=config.data.threads,
    )


def evaluation_set(config, source) -> pipeline.EvaluationSet:
    """The same examples by index."""
    return pipeline.EvaluationSet(source, **_evaluation(config))


def _evaluation(config):
    return {
        "view": pipeline.View(config.data.size, tuple(config.eval.crop_scale)),
        "family": validation.evaluation_masks(config),
        "seed": config.eval.seed,
        "examples": config.eval.examples,
    }


def variables(config, now):
    """What evaluation applies: those of a training state (`TrainState.eval_variables`), prepared."""
    return unet.prepared(now.eval_variables, config.model.dtype)


def unet_model(config) -> unet.UNet:
    """The network of `config.model`, its batch normalisation synchronised over the devices."""
    options = {**config.model, "kernels": tuple(config.model.kernels), "dtype": jnp.dtype(config.model.dtype)}
    return unet.UNet(**options, axis_name=parallel.AXIS)


def vgg16_features(config):
    """`(features, params)`, where `features(params, images)` are VGG16's feature maps.

    `(None, {})` where the terms that need them are off, which the log says.
    """
    if not config.loss.vgg16_weights:
        logging.info("no loss.vgg16_weights: the perceptual and style terms are off")
        return None, {}
    module, params = vgg.load(config.loss.vgg16_weights, jnp.dtype(config.model.dtype), config.model.conv_impl)

    def features(params, images):
        return module.apply({"params": params}, images)

    return jax.checkpoint(features) if config.model.remat else features, params
