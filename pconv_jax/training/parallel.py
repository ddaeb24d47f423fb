"""Runs the training step on all devices of all hosts by `jax.pmap`. No other file names devices or hosts.

`train.batch_size` is the batch over all devices. A training step on N devices equals the step on one, up to rounding,
because gradients and metrics are averaged and batch normalisation is synchronised. Each host reads its share of a batch
and keeps one copy of the state per device, without a device axis. Only host 0 writes to the run directory.
"""

import collections
import contextlib
import hashlib
import itertools
import os
import sys
import time
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from pconv_jax import errors

AXIS = "batch"

HEARTBEAT_SECONDS = 60  # The other hosts end this long after a host has died.
SHUTDOWN_SECONDS = 6 * 3600  # Hosts wait at most this long at the end, while the first one evaluates.


def start_hosts(coordinator: str | None, hosts: int | None, host: int | None) -> bool:
    """Joins the hosts of a job. It must be called before anything else of JAX is used.

    Without arguments, a job that SLURM or Open MPI started with more than one task is detected; otherwise this host is
    alone and nothing happens.

    Args:
      coordinator: `address:port` of host 0, reachable by all.
      hosts: number of hosts.
      host: index of this host, 0 to hosts - 1.

    Returns:
      True if there is more than one host.

    Raises:
      UserError: some of the arguments are missing, or `host` is out of range.
    """
    set_arguments = [value is not None for value in (coordinator, hosts, host)]
    if any(set_arguments) and not all(set_arguments):
        raise errors.UserError("--coordinator, --hosts and --host belong together: give all three, or none under SLURM")
    if all(set_arguments) and not (hosts >= 1 and 0 <= host < hosts):
        raise errors.UserError(f"--host is {host} and --hosts {hosts}; needs --host from 0 to --hosts - 1")
    tasks = max(int(os.environ.get(name, 1)) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    if not all(set_arguments) and tasks <= 1:
        return False
    job = {"coordinator_address": coordinator, "num_processes": hosts, "process_id": host}
    arguments = job if all(set_arguments) else {}
    jax.distributed.initialize(
        **arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS
    )
    # Under SLURM and Open MPI, `initialize` leaves each task only the GPU of its number. Here a task uses all GPUs.
    for platform in ("cuda", "rocm"):
        jax.config.update(f"jax_{platform}_visible_devices", "all")
    sys.excepthook = _end_at_once
    return True


def _end_at_once(kind, error, trace):
    """Ends the process at once after an uncaught exception. Python's exit would wait for the other hosts, for hours."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        leave(f"error: {error}")  # most likely another host has died
    sys.__excepthook__(kind, error, trace)
    if jax.process_count() > 1:
        leave("error: this host ends, and the job with it")


def is_first_host() -> bool:
    """Returns whether this host is the one that writes checkpoints, metrics, pictures and tables."""
    return jax.process_index() == 0


def shard() -> tuple[int, int]:
    """Returns `(index, count)`: the index of this host and the number of hosts."""
    return jax.process_index(), jax.process_count()


def leave(message: str) -> NoReturn:
    """Ends this process with an error message. With several hosts it ends at once, without waiting for the others."""
    if jax.process_count() == 1:
        sys.exit(message)
    print(message, file=sys.stderr, flush=True)
    if is_first_host():
        time.sleep(2)  # the others end with the first, and need time to print messages of their own
    os._exit(1)


@contextlib.contextmanager
def together():
    """Runs a block on every host, as a context. If it fails on one, all hosts raise instead of waiting forever.

    Raises:
      UserError: another host failed.
    """
    try:
        yield
    except BaseException:
        _of_all_hosts(True)
        raise
    failed = np.flatnonzero(_of_all_hosts(False))
    if failed.size:
        raise errors.UserError(f"host {failed[0]} failed: see its log")


def _of_all_hosts(flag):
    """Returns the flags of all hosts, in order."""
    if jax.process_count() == 1:
        return np.array([flag])
    return multihost_utils.process_allgather(np.array(flag)).reshape(-1)


def check_same(what: str, fingerprints: dict[str, str]):
    """Checks that all hosts have the same fingerprints.

    Args:
      what: description of the files, for the message.
      fingerprints: fingerprint by use (`build.fingerprints`).

    Raises:
      UserError: they differ, on all hosts.
    """
    digest = np.frombuffer(hashlib.sha256(repr(sorted(fingerprints.items())).encode()).digest(), np.uint8)
    if jax.process_count() > 1:
        digests = multihost_utils.process_allgather(digest)
        others = np.flatnonzero((digests != digests[0]).any(axis=1))
        if others.size:
            raise errors.UserError(
                f"host {others[0]} has other {what} than host 0; here it is {fingerprints}: "
                "give all hosts the same files"
            )


def check_batch(name: str, batch_size: int, parts: int = 1, *, everywhere: bool = True):
    """Checks that a batch divides evenly over the devices, and the batch of a device into parts.

    Args:
      name: config key of the batch size.
      batch_size: its value.
      parts: number of parts of a device's batch (`train.accumulate`).
      everywhere: whether the batch is spread over the devices of all hosts, or only over those of this host.

    Raises:
      UserError: it does not; the message has the nearest sizes that do.
    """
    devices = jax.device_count() if everywhere else jax.local_device_count()
    multiple = devices * parts
    if batch_size % multiple:
        lower, upper = batch_size - batch_size % multiple, batch_size + multiple - batch_size % multiple
        fits = f"{lower} or {upper}" if lower else str(upper)
        where = f"on {devices} devices" + (f" in {parts} parts each" if parts > 1 else "")
        raise errors.UserError(f"{name} is {batch_size} {where}; needs a multiple of {multiple}: use {fits}")


def replicate(tree):
    """Places a copy of every array on every device of this host, without a device axis."""
    # Through the host: `device_put` of device arrays shares their buffers, and donating the copy would delete both.
    return jax.device_put(jax.tree.map(np.asarray, tree), _sharding(PartitionSpec()))


def from_first_host(tree):
    """Copies host 0's arrays to every host, placed as `replicate` does. All hosts pass arrays of equal shapes."""
    if jax.process_count() > 1:
        tree = multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))
    return replicate(tree)


def agreed(requested: bool, step: int = 0) -> bool:
    """Returns True on all hosts if any host asks for it.

    Args:
      requested: whether this host asks for it.
      step: number of steps done; several hosts communicate only at every tenth step, and return False at the others.
    """
    if jax.process_count() == 1:
        return requested
    return step % 10 == 0 and bool(_of_all_hosts(requested).any())


def map_step(train_step):
    """Maps a training step `(state, batch, vgg16) -> (state, metrics)` over all devices.

    State and VGG16's parameters must be placed by `replicate`. The state is donated, and the metrics are scalars.
    """
    return jax.pmap(train_step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=0)


def map_predict(predict):
    """Compiles `predict(variables, image, mask)` with the batch spread over the devices of this host."""
    batch, everywhere = _sharding(PartitionSpec(AXIS)), _sharding(PartitionSpec())
    mapped = jax.jit(predict, in_shardings=(everywhere, batch, batch), out_shardings=batch)

    def call(variables, image, mask):
        return mapped(variables, *jax.device_put((image, mask), batch))

    return call


def prefetch(batches, ahead=2):
    """Moves batches to the devices before they are used: `[B, ...] -> [devices, B / devices, ...]`.

    Args:
      batches: batches on the host, each a dict of arrays.
      ahead: number of batches to move in advance.

    Yields:
      The batches on the devices.
    """
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
