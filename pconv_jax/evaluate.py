"""Evaluates a run or exported weights on fixed images and masks, beside other runs, programs and classical fillers.

python -m pconv_jax.evaluate --run=runs/quickstart
python -m pconv_jax.evaluate --run=runs/a --compare=runs/b
python -m pconv_jax.evaluate --run=runs/a --write_manifest=inputs
python -m pconv_jax.evaluate --predictions=results --manifest=inputs --out=scores
python -m pconv_jax.evaluate --run=runs/a --lpips_weights=lpips.npz --fid_weights=inception.npz
python -m pconv_jax.evaluate --config=experiments/keras_notebook.py --weights=photographs.safetensors --out=scores
"""

import os
import tempfile

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.data import sources
from pconv_jax.evaluation import (
    baselines,
    evaluator,
    grid_evaluator,
    inputs,
    manifest,
    perceptual,
    predictions,
    report,
    scores,
    tables,
)
from pconv_jax.inpainting import inpainter, weights_file
from pconv_jax.models import inception, lpips, unet
from pconv_jax.training import (
    build,
    compilation_cache,
    parallel,
    rundir,
    validation,
    versions,
)

BATCH = 8  # Batch size if there is no run, whose config would state it.


def define_flags(flag_values: flags.FlagValues):
    """Defines the flags of `python -m pconv_jax.evaluate`."""
    flags.DEFINE_string("run", None, "Run directory that training wrote.", flag_values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of each run.", flag_values)
    command_line.define_config(flag_values, required=False)
    flags.DEFINE_list(
        "weights", [], "Weights files; with --config alone, those that the package contains.", flag_values
    )
    flags.DEFINE_list("ensemble", ["1"], "Flips and turns that --weights average over, e.g. 1,8 for both.", flag_values)
    flags.DEFINE_list("compare", [], "Other run directories, on the same inputs.", flag_values)
    flags.DEFINE_list("predictions", [], "Folders of other programs' results for the inputs, <name>.png.", flag_values)
    flags.DEFINE_list("baselines", list(baselines.DEFAULT), "Classical fillers; also FSR, GMIC (slow).", flag_values)
    flags.DEFINE_string("manifest", None, "Folder of inputs to use in place of the run's own.", flag_values)
    flags.DEFINE_string("write_manifest", None, "Write the run's inputs to this folder, and nothing else.", flag_values)
    flags.DEFINE_string("lpips_weights", None, f"Adds LPIPS; the file is made by {lpips.TOOL}.", flag_values)
    flags.DEFINE_string("fid_weights", None, f"Adds FID; the file is made by {inception.TOOL}.", flag_values)
    flags.DEFINE_bool("references", False, "Show published scores below the tables.", flag_values)
    flags.DEFINE_string("out", None, "Folder of the results; default RUN/eval.", flag_values)
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache directory.", flag_values)


def main(flag_values: flags.FlagValues):
    """Scores all methods on the same inputs and writes the report, after checking flags, configs and files.

    Raises:
      UserError: A flag, run, manifest or file does not fit. Nothing has been written then.
      OSError: A file cannot be read or written.
    """
    _check_flags(flag_values)
    compilation_cache.enable(flag_values.compilation_cache)
    configs = {path: _config(path) for path in ([flag_values.run] if flag_values.run else []) + flag_values.compare}
    config = configs.get(flag_values.run) or flag_values.config
    if any(sources.SOURCES[c.data.source].grids for c in (*configs.values(), *filter(None, [flag_values.config]))):
        _evaluate_grids(flag_values, configs)
        return
    if flag_values.manifest:
        chosen = manifest.Manifest(flag_values.manifest)
    else:
        chosen = _drawn(flag_values.run, configs) if flag_values.run else _of_config(config)
    batch_size, threads = (config.eval.batch_size, config.data.threads) if config else (BATCH, 2)
    if flag_values.write_manifest:
        about = {
            "eval": config.eval.to_dict(),
            "evaluation images": rundir.read_data(flag_values.run).get("evaluation") if flag_values.run else None,
        }
        count = manifest.write(flag_values.write_manifest, inputs.batches(chosen, batch_size, threads), about)
        print(f"{count} inputs written to {flag_values.write_manifest}: images, masks (white = hole), {manifest.FILE}")
        return
    if flag_values.manifest:
        for path, other in configs.items():
            _check_fits(path, other, chosen)
    measures = perceptual.measures(flag_values.lpips_weights, flag_values.fid_weights, chosen[0].image.shape[:2])
    methods = {
        path: predictions.method(path, chosen.names, chosen.size, chosen.channels) for path in flag_values.predictions
    }
    networks, about, title = {}, {}, _base(flag_values.manifest) if flag_values.manifest else ""
    for path, other in configs.items():
        state = evaluator.restore(path, build.state_shapes(other), flag_values.checkpoint)
        name = scores.NETWORK if path == flag_values.run else path
        model = build.unet_model(other)
        variables = unet.prepared(state.eval_variables, model.dtype)
        networks[name] = scores.network(evaluator.compiled(model, other.train.pyramid_levels), variables, batch_size)
        about[name] = {"run": path, **evaluator.about_network(other, state)}
        title = evaluator.title(config, state) if path == flag_values.run else title
    for path, fill, description in _weights(flag_values):
        name = path if networks else scores.NETWORK
        networks[name], about[name] = scores.inpainter(fill), description
        title = title or f"{description['name']} at step {description['step']}"
    methods = {**networks, **methods, **{name: scores.baseline(name) for name in flag_values.baselines}}
    if not methods:
        raise errors.UserError("nothing to score: give --run, --weights, --predictions or --baselines")
    methods = {name: scores.Timed(fill) for name, fill in methods.items()}
    _score(flag_values, title, chosen, methods, measures, about, batch_size, threads)


def _evaluate_grids(flag_values, configs):
    """Writes the report of one run on grids, as training does at its end; nothing else is compared on grids."""
    if list(configs) != [flag_values.run] or flag_values.manifest or flag_values.write_manifest or flag_values.weights:
        raise errors.UserError(
            "only a run itself is evaluated on grids: give --run=DIR and no other network, experiment or manifest"
        )
    config = configs[flag_values.run]
    _, source = build.image_sources(config)
    _check_recorded(flag_values.run, config, source)
    state = evaluator.restore(flag_values.run, build.state_shapes(config), flag_values.checkpoint)
    examples = build.evaluation_set(config, source)
    evaluation = grid_evaluator.GridEvaluator(build.unet_model(config), examples, config.eval.batch_size)
    evaluation.report(state, flag_values.run, flag_values.checkpoint)


def _score(flag_values, title, chosen, methods, measures, about, batch_size, threads):
    """Scores all methods, writes the report and prints the tables."""
    folder = flag_values.out or os.path.join(flag_values.run, "eval")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):  # Scoring takes long; a folder that cannot be written is reported before.
        pass
    records = scores.score(methods, inputs.batches(chosen, batch_size, threads), **measures)
    seconds = ", ".join(f"{name} {method.seconds:.2g}" for name, method in methods.items())
    first = next(iter(methods))
    own = [record for record in records if record["method"] == first]
    origin = flag_values.config.name if flag_values.config else None
    parts = (flag_values.run and flag_values.checkpoint, origin, flag_values.manifest and _base(flag_values.manifest))
    name = "_".join(part for part in parts if part)
    path = os.path.join(folder, name)
    about = {
        **about.get(scores.NETWORK, {}),
        "networks": about,
        "inputs": inputs.fingerprint([record["name"] for record in own]),
        **{name: measure.about for name, measure in measures.items()},
        "versions": versions.libraries(),
    }
    _, compared = report.write(
        path,
        title,
        records,
        about,
        chosen,
        methods[first],
        grid_rows=batch_size,
        with_figures=True,
        with_references=flag_values.references,
        fid=measures.get(perceptual.FID),
        notes=perceptual.notes(measures, len(own)),
    )
    overall = [row for row in compared if row["bucket"] == tables.ALL]
    shown = (tables.markdown_compared(overall, metric) for metric in ("psnr", "ssim", "l1_percent", perceptual.LPIPS))
    print(*filter(None, shown), sep="\n")
    if flag_values.references:
        print(*map(tables.markdown_references, ("psnr", "ssim")), sep="\n")
    print(f"seconds per image: {seconds}\nwritten: {path}*")


def _check_flags(flag_values):
    """Checks the flags that can be checked without reading files."""
    unknown = [name for name in flag_values.baselines if name not in baselines.BASELINES]
    if unknown:
        raise errors.UserError(
            f"--baselines={','.join(unknown)} is unknown; needs some of {', '.join(baselines.BASELINES)}"
        )
    if not flag_values.run and not flag_values.manifest and not flag_values.config:
        raise errors.UserError(
            "no inputs: give --run=DIR, or --config=FILE, or --manifest=DIR with --predictions=DIR or --weights=FILE"
        )
    if flag_values.config and (flag_values.run or flag_values.manifest):
        raise errors.UserError("--config decides the inputs, and so do --run and --manifest: give one of them")
    if flag_values.compare and not flag_values.run:
        raise errors.UserError("--compare needs --run=DIR, which the others are compared with")
    if flag_values.write_manifest and not (flag_values.run or flag_values.config):
        raise errors.UserError("--write_manifest needs --run=DIR or --config=FILE, whose inputs it writes")
    if not all(count.isdecimal() and 1 <= int(count) <= 8 for count in flag_values.ensemble):
        raise errors.UserError(f"--ensemble={','.join(flag_values.ensemble)}; needs numbers from 1 to 8, e.g. 1,8")
    if flag_values.predictions and not flag_values.manifest:
        raise errors.UserError("--predictions needs --manifest=DIR, the inputs that the results are of")
    if flag_values.manifest and flag_values.write_manifest:
        raise errors.UserError("--write_manifest writes the run's own inputs: leave --manifest out")
    if not (flag_values.run or flag_values.out or flag_values.write_manifest):
        raise errors.UserError("--out=DIR is missing: without --run there is no run directory to write to")
    methods = [flag_values.run, *flag_values.compare, *flag_values.predictions]
    if len(set(methods)) < len(methods):
        raise errors.UserError(
            f"--run, --compare and --predictions name a folder twice: {', '.join(map(str, methods))}"
        )


def _config(path):
    config = rundir.read_config(path)
    validation.validate(config)
    parallel.check_batch("eval.batch_size", config.eval.batch_size)
    return config


def _drawn(path, configs):
    """Returns the inputs of a run, which are the same for all runs that are compared."""
    config = configs[path]
    for other, other_config in configs.items():
        inputs.check_same(path, config, other, other_config)
    _, source = build.image_sources(config)
    _check_recorded(path, config, source)
    return inputs.Drawn(build.evaluation_set(config, source))


def _check_recorded(path, config, source):
    """Raises UserError unless the evaluation images and masks are those that a run was trained beside."""
    recorded = rundir.read_data(path)
    current = {"evaluation": source.fingerprint(), **build.evaluation_masks_fingerprint(config)}
    for use, fingerprint in current.items():
        if recorded.get(use) != fingerprint:
            what = "masks" if use == build.EVALUATION_MASKS else "images"
            raise errors.UserError(
                f"{path} was trained beside other evaluation {what} ({recorded.get(use)} then, {fingerprint} now): "
                "restore them, or give --manifest=DIR"
            )


def _of_config(config):
    """Returns the inputs of an experiment file: all photographs of data.path, or its source's evaluation images."""
    validation.validate(config)
    data = config.data
    if data.source == "folder":
        source = sources.DecodedSource(sources.folder(data.path), config.model.channels, data.cache, data.max_pixels)
    else:
        _, source = build.image_sources(config)
    return inputs.Drawn(build.evaluation_set(config, source))


def _weights(flag_values):
    """Yields `(name, Inpainter, description)` of each weights file with each ensemble."""
    paths = [weights_file.PRETRAINED] if flag_values.config and not flag_values.weights else flag_values.weights
    for path in paths:
        weights = weights_file.read(path)
        for count in map(int, flag_values.ensemble):
            fill = inpainter.Inpainter(weights.model(), weights.variables, settings=weights.settings, ensemble=count)
            name = f"{_base(path)}, mean of {count}" if count > 1 else _base(path)
            about = {**weights.about, "variables_sha256": weights_file.sha256(weights.variables), "ensemble": count}
            yield name, fill, about


def _check_fits(path, config, chosen):
    """Raises UserError unless a network takes the inputs of a manifest."""
    if config.model.channels != chosen.channels:
        raise errors.UserError(
            f"{path} is a network for {config.model.channels} channels and {chosen.directory} has {chosen.channels}"
        )
    with errors.prefixed(f"{chosen.directory} does not fit {path}: "):
        unet.check_size(chosen.size, config.model.depth)


def _base(path):
    return os.path.basename(os.path.abspath(path))


if __name__ == "__main__":
    command_line.run(main, define_flags, interrupted="interrupted: every file that was written is whole")
