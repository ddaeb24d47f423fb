"""Times each layer of the U-Net by itself: forward pass, gradient by its input, gradient by its kernel, mask sum.

    python -m pconv_jax.benchmark op [--sizes=256] [--batches=2] [--config.model.conv_impl=xla]

A layer is the function that the network calls (`ops.cpu.dispatch`), compiled by itself, on random features with masks
of the config. In a whole step it may be faster, because it is fused with its neighbours or shares work with them. A
gradient is timed without the forward pass; the decoder's gradient by its input is that by both inputs. Below a
millisecond much of the time is that of the call.
"""

import tempfile

from absl import flags, logging

from pconv_jax import errors
from pconv_jax.benchmark import arguments, measurement, operations, report, workers

PARTS = ("forward", "input gradient", "kernel gradient", "mask")


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark op`."""
    arguments.define(flag_values, sizes="256", batches="2", steps=10)
    flags.DEFINE_list(
        "layers", [], "Names of the layers to measure, e.g. enc1,dec1; by default all.", flag_values=flag_values
    )


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("op", measure, flag_values, show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Measures the layers of the config's network.

    Args:
      config: experiment config.
      flag_values: parsed flags.

    Returns:
      For each size and batch, one row per layer and part, and one for the masks of all layers together; then the large
      convolution; see `report`.

    Raises:
      UserError: a layer is unknown, or the network is not made of partial convolutions.
    """
    rows = []
    for size in arguments.integers(flag_values, "sizes"):
        for batch in arguments.integers(flag_values, "batches"):
            rows += _network(arguments.sized(config, size, batch), flag_values)
    return measurement.with_shares(rows)


def show(rows: list[dict]) -> str:
    """Returns a Markdown table with one line per layer.

    The cells hold the minimum of each part in milliseconds, and in brackets the share of the peak rate.

    Args:
      rows: the result of `measure`.
    """
    lines = [["layer", "size", "batch", *(f"{part} ms" for part in PARTS)]]
    parts = {}
    for row in rows:
        layer, _, part = row["what"].partition(" ")
        if part in PARTS:
            parts.setdefault((layer, row["size"], row["batch"]), {})[part] = row
    for size, batch in dict.fromkeys(key[1:] for key in parts):
        network = {key: layer for key, layer in parts.items() if key[1:] == (size, batch)}
        lines += [[*map(str, key), *(_cell(layer[part]) for part in PARTS)] for key, layer in network.items()]
        sums = [sum(layer[part]["min_s"] for layer in network.values()) for part in PARTS]
        lines.append(["sum", str(size), str(batch), *(f"{1e3 * total:.1f}" for total in sums)])
    others = [row for row in rows if row["what"].partition(" ")[2] not in PARTS]
    return f"{rows[0]['settings']}\n\n{report.markdown(lines)}\n\n{report.table(others)}"


def _cell(row):
    share = f" ({row['share_of_peak']:.2f})" if "share_of_peak" in row else ""
    return f"{1e3 * row['min_s']:.2f}{share}"


def _network(config, flag_values):
    """Returns the rows of one size and batch."""
    size, batch, names = config.data.size, config.train.batch_size, flag_values.layers
    layers = operations.layers(config.model, size)
    known = [layer.name for layer in layers]
    if set(names) - set(known):
        raise errors.UserError(f"--layers={','.join(names)}; needs some of {', '.join(known)}")
    if config.model.kind != "partial":
        raise errors.UserError(f'model.kind is "{config.model.kind}"; the benchmark op measures "partial"')
    shared, rows = {"size": size, "batch": batch, "by": "ours", "dtype": config.model.dtype}, []
    with (
        tempfile.TemporaryDirectory() as directory,
        workers.Worker(workers.OURS, workers.environment(flag_values.malloc)) as worker,
    ):
        path = measurement.save_examples(config, directory)

        def row(what, task, options, operations_per_image=0):
            request = {"config": config.to_dict(), "batch": path, "options": options}
            first = worker.ask(do="prepare", task=task, **request)
            seconds = worker.ask(do="steps", count=measurement.WARM_UP + flag_values.steps)["seconds"]
            times = report.times(seconds[measurement.WARM_UP :])
            rate = {"gflops": batch * operations_per_image / times["min_s"] / 1e9} if operations_per_image else {}
            compile_s = max(first["first_s"] - times["min_s"], 0.0)
            return {"what": what, **shared, "settings": first["settings"], "compile_s": compile_s, **times, **rate}

        for layer in layers:
            if names and layer.name not in names:
                continue
            for part in PARTS:
                counted = part != "mask" and (layer is not layers[0] or part != "input gradient")
                options = {"layer": layer.name, "part": part}
                rows.append(row(f"{layer.name} {part}", "layer", options, layer.forward if counted else 0))
            logging.info("%s: %s ms", layer.name, ", ".join(f"{row['min_s'] * 1e3:.2f}" for row in rows[-len(PARTS) :]))
        rows.append(row("all masks", "masks", {}))
        return rows + [measurement.large_convolution(worker, "ours", config.model.dtype)]
