"""How fast each layer of the U-Net is by itself: forward, gradient of its input, gradient of its kernel, its mask.

    python -m pconv_jax.benchmark op [--sizes=256] [--batches=2] [--config.model.conv_impl=xla]

A layer is what the network calls (`ops.conv_impl`), on random features with masks of the config, compiled by itself:
what it shares with its neighbours in a whole step, or is fused with, is not seen here. A gradient is computed without
the forward pass; the decoder's is that of both inputs. Below a millisecond much of a time is that of the call.
"""

import tempfile

from absl import flags, logging

from pconv_jax.benchmark import arguments, competitors, operations, report, workers

PARTS = ("forward", "input gradient", "kernel gradient", "mask")


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark op`."""
    arguments.define(flag_values, sizes="256", batches="2", steps=10)
    flags.DEFINE_list("layers", [], "Only these, e.g. enc1,dec1; empty: all.", flag_values=flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("op", measure, flag_values, show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """A row for each layer and part, one for all masks together, and the large convolution."""
    rows = []
    for size in arguments.integers(flag_values, "sizes"):
        for batch in arguments.integers(flag_values, "batches"):
            rows += _network(
                arguments.sized(config, size, batch), flag_values.steps, flag_values.malloc, flag_values.layers
            )
    return competitors.with_shares(rows)


def show(rows: list[dict]) -> str:
    """A table of a line per layer: milliseconds of each part by the minimum, and in brackets the share of the peak."""
    lines = [["layer", "size", "batch", *(f"{part} ms" for part in PARTS)]]
    parts = {}
    for row in rows:
        layer, _, part = row["what"].partition(" ")
        if part in PARTS:
            parts.setdefault((layer, row["size"], row["batch"]), {})[part] = row
    for size, batch in dict.fromkeys(key[1:] for key in parts):
        of_network = {key: found for key, found in parts.items() if key[1:] == (size, batch)}
        lines += [[*map(str, key), *(_cell(found[part]) for part in PARTS)] for key, found in of_network.items()]
        sums = [sum(found[part]["min_s"] for found in of_network.values()) for part in PARTS]
        lines.append(["sum", str(size), str(batch), *(f"{1e3 * total:.1f}" for total in sums)])
    others = [row for row in rows if row["what"].partition(" ")[2] not in PARTS]
    return f"{rows[0]['settings']}\n\n{report.markdown(lines)}\n\n{report.table(others)}"


def _cell(row):
    share = f" ({row['share_of_peak']:.2f})" if "share_of_peak" in row else ""
    return f"{1e3 * row['min_s']:.2f}{share}"


def _network(config, steps, malloc, only):
    """The rows of one size and batch."""
    size, batch = config.data.size, config.train.batch_size
    layers = operations.layers(config.model, size)
    unknown = set(only) - {layer.name for layer in layers}
    if unknown:
        raise ValueError(f"--layers={','.join(only)}; needs some of {', '.join(layer.name for layer in layers)}")
    if config.model.kind != "partial":
        raise ValueError(f'model.kind is "{config.model.kind}"; op measures "partial"')
    chosen = [layer for layer in layers if not only or layer.name in only]
    shared, rows = {"size": size, "batch": batch, "by": "ours", "dtype": config.model.dtype}, []
    with (
        tempfile.TemporaryDirectory() as directory,
        workers.Worker(workers.OURS, workers.environment(malloc)) as worker,
    ):
        path = competitors.save_examples(config, directory)

        def row(what, subject, options, needed=0):
            request = {"config": config.to_dict(), "batch": path, "options": options}
            first = worker.ask(do="prepare", subject=subject, **request)
            times = report.times(worker.ask(do="steps", count=competitors.WARM + steps)["seconds"][competitors.WARM :])
            rate = {"gflops": batch * needed / times["min_s"] / 1e9} if needed else {}
            compile_s = max(first["first_s"] - times["min_s"], 0.0)
            return {"what": what, **shared, "settings": first["settings"], "compile_s": compile_s, **times, **rate}

        for layer in chosen:
            for part in PARTS:
                counted = part != "mask" and (layer is not layers[0] or part != "input gradient")
                options = {"layer": layer.name, "part": part}
                rows.append(row(f"{layer.name} {part}", "layer", options, layer.forward if counted else 0))
            logging.info("%s: %s ms", layer.name, ", ".join(f"{row['min_s'] * 1e3:.2f}" for row in rows[-len(PARTS) :]))
        rows.append(row("all masks", "masks", {}))
        return rows + [competitors.large(worker, "ours", config.model.dtype)]
