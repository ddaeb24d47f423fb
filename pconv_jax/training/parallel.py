"""Devices and hosts: the only file that names them. Steps are mapped over all devices of all hosts with `jax.pmap`.

The batch of the config is the batch over all devices; N devices compute the same step as one, because gradients and
metrics are averaged and batch normalisation is synchronised. Each host reads its share of a batch and keeps one copy of
the state per device, without a device axis. Host 0 alone touches the run directory.
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

HEARTBEAT_SECONDS = 60  # after which a host that is gone ends the job on the others
SHUTDOWN_SECONDS = 6 * 3600  # that hosts wait for each other at the end: for the evaluation of the first


def start_hosts(coordinator: str | None, hosts: int | None, host: int | None) -> bool:
    """Joins the hosts of a job, before anything else of JAX is used.

    Without arguments the job is found by itself where SLURM or Open MPI started more than one task; else there is one
    host, and nothing to join.

    Args:
      coordinator: `address:port` of host 0, reachable by all.
      hosts: how many there are.
      host: which one this is, 0 to hosts - 1.

    Returns:
      Whether there is more than one host.

    Raises:
      UserError: some of the arguments without the others.
    """
    given = [value is not None for value in (coordinator, hosts, host)]
    if any(given) and not all(given):
        raise errors.UserError("--coordinator, --hosts and --host belong together: give all three, or none under SLURM")
    if all(given) and not (hosts >= 1 and 0 <= host < hosts):
        raise errors.UserError(f"--host is {host} and --hosts {hosts}; needs --host from 0 to --hosts - 1")
    tasks = max(int(os.environ.get(name, 1)) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    if not all(given) and tasks <= 1:
        return False
    arguments = {"coordinator_address": coordinator, "num_processes": hosts, "process_id": host} if all(given) else {}
    jax.distributed.initialize(
        **arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS
    )
    # Under SLURM and Open MPI that leaves a task the one GPU of its number; here one task drives all of its host.
    for platform in ("cuda", "rocm"):
        jax.config.update(f"jax_{platform}_visible_devices", "all")
    sys.excepthook = _end_at_once
    return True


def _end_at_once(kind, error, trace):
    """For what nobody caught: Python's own way out waits until the other hosts end, too, which may take hours."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        leave(f"error: {error}")  # another host is gone, most likely
    sys.__excepthook__(kind, error, trace)
    if jax.process_count() > 1:
        leave("error: this host ends, and the job with it")


def is_first_host() -> bool:
    """Whether this host writes: checkpoints, metrics, pictures, tables."""
    return jax.process_index() == 0


def shard() -> tuple[int, int]:
    """`(index, count)` of this host."""
    return jax.process_index(), jax.process_count()


def leave(message: str) -> NoReturn:
    """Ends this process with an error. On several hosts at once: Python's own way waits for the others to end, too."""
    if jax.process_count() == 1:
        sys.exit(message)
    print(message, file=sys.stderr, flush=True)
    if is_first_host():
        time.sleep(2)  # the others end when the first is gone, and may have a message of their own
    os._exit(1)


@contextlib.contextmanager
def together():
    """For what may fail on one host alone: the others raise then, too, rather than wait for it.

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
    """The flags of all hosts, in order."""
    if jax.process_count() == 1:
        return np.array([flag])
    return multihost_utils.process_allgather(np.array(flag)).reshape(-1)


def check_same(what: str, found: dict[str, str]):
    """Raises UserError on all hosts unless all have found the same; `what` it is goes into the text."""
    digest = np.frombuffer(hashlib.sha256(repr(sorted(found.items())).encode()).digest(), np.uint8)
    if jax.process_count() > 1:
        digests = multihost_utils.process_allgather(digest)
        others = np.flatnonzero((digests != digests[0]).any(axis=1))
        if others.size:
            raise errors.UserError(
                f"host {others[0]} has other {what} than host 0; here it is {found}: give all hosts the same files"
            )


def check_batch(name: str, batch_size: int, parts: int = 1, *, everywhere: bool = True):
    """Raises UserError unless the batch divides evenly over the devices, and there into `parts`.

    Args:
      name: key of the config.
      batch_size: its value.
      parts: of a device's batch.
      everywhere: over the devices of all hosts; else of this one.
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
    # By way of the host: placing device arrays would share their buffers, and donating the copy would delete both.
    return jax.device_put(jax.tree.map(np.asarray, tree), _sharding(PartitionSpec()))


def from_first_host(tree):
    """Host 0's arrays on every host, placed as `replicate` does; those of other hosts give the shapes."""
    if jax.process_count() > 1:
        tree = multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))
    return replicate(tree)


def agreed(wish: bool, step: int = 0) -> bool:
    """Whether any host wishes so, the same answer on all; several hosts ask each other every tenth step only."""
    if jax.process_count() == 1:
        return wish
    return step % 10 == 0 and bool(_of_all_hosts(wish).any())


def map_step(train_step):
    """`(state, batch, vgg16) -> (state, metrics)` over all devices.

    State and VGG16's parameters are replicated (`replicate`), the state is donated, the metrics are plain scalars.
    """
    return jax.pmap(train_step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=0)


def map_predict(predict):
    """`predict(variables, image, mask)` with the batch spread over the devices of this host."""
    batch, everywhere = _sharding(PartitionSpec(AXIS)), _sharding(PartitionSpec())
    mapped = jax.jit(predict, in_shardings=(everywhere, batch, batch), out_shardings=batch)

    def call(variables, image, mask):
        return mapped(variables, *jax.device_put((image, mask), batch))

    return call


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
