"""Devices: the only file that names them. Steps are mapped over all local devices with `jax.pmap`.

The batch of the config is the batch over all devices; N devices compute the same step as one, because gradients and
metrics are averaged and batch normalisation is synchronised. The state is one replicated copy without a device axis.
"""

import collections
import itertools

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

AXIS = "batch"


def check_batch(name: str, batch_size: int, parts: int = 1):
    """Raises ValueError unless the batch divides evenly over the devices, all of one host, and there into `parts`."""
    if jax.process_count() > 1:
        raise ValueError(f"{jax.process_count()} hosts; training runs on one: start it without jax.distributed")
    devices = jax.local_device_count()
    multiple = devices * parts
    if batch_size % multiple:
        lower, upper = batch_size - batch_size % multiple, batch_size + multiple - batch_size % multiple
        fits = f"{lower} or {upper}" if lower else str(upper)
        where = f"on {devices} devices" + (f" in {parts} parts each" if parts > 1 else "")
        raise ValueError(f"{name} is {batch_size} {where}; needs a multiple of {multiple}: use {fits}")


def replicate(tree):
    """Places a copy of every array on every device, without a device axis."""
    # By way of the host: placing device arrays would share their buffers, and donating the copy would delete both.
    return jax.device_put(jax.tree.map(np.asarray, tree), _sharding(PartitionSpec()))


def abstract(tree):
    """Shapes and dtypes of a replicated tree: what a checkpoint is restored into."""
    place = _sharding(PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def map_step(train_step):
    """`(state, batch, vgg16) -> (state, metrics)` over all devices.

    State and VGG16's parameters are replicated (`replicate`), the state is donated, the metrics are plain scalars.
    """
    return jax.pmap(train_step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=0)


def map_predict(predict):
    """`predict(variables, image, mask)` with the batch spread over all devices."""
    batch, everywhere = _sharding(PartitionSpec(AXIS)), _sharding(PartitionSpec())
    return jax.jit(predict, in_shardings=(everywhere, batch, batch), out_shardings=batch)


def prefetch(batches, ahead=2):
    """Moves batches to the devices `ahead` of their use: `[B, ...] -> [devices, B / devices, ...]`."""
    place, devices = _sharding(PartitionSpec(AXIS)), jax.local_device_count()
    queue, batches = collections.deque(), iter(batches)

    def fill(count):
        for batch in itertools.islice(batches, count):
            shards = {name: x.reshape(devices, -1, *x.shape[1:]) for name, x in batch.items()}
            queue.append(jax.device_put(shards, place))

    fill(ahead)
    while queue:
        yield queue.popleft()
        fill(1)


def _sharding(spec):
    return NamedSharding(jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,)), spec)
