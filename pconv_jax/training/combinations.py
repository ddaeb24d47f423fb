"""Checks that the values of a config work together."""

from pconv_jax import errors
from pconv_jax.data import masks, sources
from pconv_jax.models import options, unet
from pconv_jax.ops import losses
from pconv_jax.training import example_settings


def problems(config) -> list[str]:
    """Returns a message for each combination of values that does not work; each value alone is right.

    Args:
      config: a config whose keys follow `validation.RULES`.
    """
    problems = []

    def check(key, call, *args):
        try:
            call(*args)
        except errors.UserError as error:
            problems.append(f"{key}: {error}")

    check("masks", example_settings.train_masks, config)
    check("eval.masks", example_settings.evaluation_masks, config)
    if not config.model.any_size:
        key = "data.grid" if config.data.grid else "data.size"
        check(key, unet.check_size, example_settings.size(config), config.model.depth)
    check("model", options.check, config.model, config.model.kind)
    problems += _wrong_pyramid(config)
    problems += _wrong_sources(config.data)
    problems += _wrong_grids(config) if sources.SOURCES[config.data.source].grids else _wrong_photographs(config)
    if config.train.samples > config.eval.batch_size:
        problems.append(
            f"train.samples is {config.train.samples}; needs at most eval.batch_size, {config.eval.batch_size}"
        )
    if not config.train.steps + config.finetune.steps:
        problems.append("train.steps and finetune.steps are both 0: nothing would be learned")
    if 0 < config.train.steps <= config.optim.warmup_steps:
        problems.append(f"optim.warmup_steps is {config.optim.warmup_steps}; needs less than train.steps")
    if config.model.norm == "masked_batch" and config.model.kind != "partial":
        problems.append(
            f'model.norm is "masked_batch" and model.kind "{config.model.kind}", which has no mask to normalise by: '
            "set model.norm=batch"
        )
    if config.model.mask_update != "shrink" and config.model.kind != "partial":
        problems.append(
            f'model.mask_update is "{config.model.mask_update}" and model.kind "{config.model.kind}", which has no '
            "mask to update: set model.mask_update=shrink"
        )
    active = losses.term_names(features=bool(config.loss.vgg16_weights))
    if not any(config.loss.weights[term] for term in active):
        problems.append(f"all of loss.weights that are on ({', '.join(active)}) are 0: nothing would be learned")
    for section in (config.masks, config.eval.masks):
        if section.path and section.kind not in masks.FROM_FILES:
            kinds = " or ".join(masks.FROM_FILES)
            problems.append(f'masks.path is {section.path} and the kind "{section.kind}": set masks.kind={kinds}')
        if section.variable and section.kind != "netcdf":
            problems.append(f'masks.variable is set and the kind is "{section.kind}": set masks.kind=netcdf')
    return problems


def _wrong_photographs(config):
    """Returns a message for each setting that is wrong for photographs."""
    problems = []
    if config.model.channels not in (1, 3):
        problems.append(f"model.channels is {config.model.channels}; needs 3 for RGB or 1 for grey")
    if config.loss.vgg16_weights and config.model.channels != 3:
        problems.append(
            "loss.vgg16_weights is set and model.channels is 1: VGG16 sees colour, so set it to an empty text"
        )
    if config.loss.area_weights:
        problems.append('loss.area_weights is True; needs data.source "netcdf", whose rows have a latitude')
    return problems


def _wrong_grids(config):
    """Returns a message for each setting that is wrong for grids of the earth."""
    problems = []
    if config.loss.vgg16_weights:
        problems.append("loss.vgg16_weights is set and the data are no photographs: set it to an empty text")
    if config.train.pyramid_levels or config.model.guess:
        problems.append("grids are filled at once: set model.guess=False and train.pyramid_levels=0")
    return problems


def _wrong_pyramid(config):
    """Returns a message for each setting of the pyramid, the network and the schedule that does not fit the others."""
    problems, levels, multiple = [], config.train.pyramid_levels, 2**config.model.depth
    if config.model.guess != (levels > 0):
        problems.append(
            f"model.guess is {config.model.guess} and train.pyramid_levels {levels}; a guess comes from a pyramid: set "
            "both, or model.guess=False and train.pyramid_levels=0"
        )
    if levels and config.data.size % (multiple * 2 ** (levels - 1)):
        problems.append(
            f"data.size is {config.data.size}, {config.data.size / 2 ** (levels - 1):g} at the coarsest of {levels} "
            f"levels; needs a multiple of {multiple} there (depth {config.model.depth}): lower train.pyramid_levels"
        )
    longest = config.train.steps - config.optim.warmup_steps
    if config.optim.schedule == "trapezoid" and not 0 < config.optim.cooldown_steps <= longest:
        problems.append(
            f'optim.schedule is "trapezoid" and optim.cooldown_steps {config.optim.cooldown_steps}; needs 1 to '
            f"{longest}, the steps that optim.warmup_steps leaves of train.steps"
        )
    return problems


def _wrong_sources(data):
    """Returns a message for each key that the chosen source lacks, and for each that belongs to another source."""
    chosen = sources.SOURCES[data.source]
    problems = [
        f'data.source is "{data.source}" and data.{key} is empty: set --config.data.{key} to {description}'
        for key, description in chosen.required.items()
        if not data[key]
    ]
    for key in dict.fromkeys(key for source in sources.SOURCES.values() for key in source.own):
        owners = [name for name, source in sources.SOURCES.items() if key in source.own]
        if data[key] and data.source not in owners:
            wanted = " or ".join(owners)
            problems.append(f'data.{key} is set and data.source is "{data.source}": set --config.data.source={wanted}')
    return problems + chosen.problems(data)
