"""Where the runs live: one mesh of devices, the runs or else the mini-batches split over it."""

import dataclasses
import os
import pathlib
import socket
import sys
import threading
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrajax import Batch
from lrajax.checks import at_least


@dataclasses.dataclass(frozen=True)
class Placement:
    """How arrays are laid over the devices.

    Attributes:
      mesh: all devices in use, one axis.
      by_run: whether the axis over the runs is split; if not, that over the mini-batch is.
    """

    mesh: Mesh
    by_run: bool

    @property
    def replicated(self) -> NamedSharding:
        """A copy on every device: data and metrics."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def runs(self) -> NamedSharding:
        """Of arrays with a leading axis over the runs."""
        return NamedSharding(self.mesh, PartitionSpec("devices" if self.by_run else None))

    def split(self, batch: Batch) -> Batch:
        """Constrains a mini-batch to its layout; called inside a compiled step."""
        if self.by_run:
            return batch
        return jax.lax.with_sharding_constraint(
            batch, NamedSharding(self.mesh, PartitionSpec("devices"))
        )


def place(num_devices: int | None, num_runs: int, batch_size: int) -> Placement:
    """Chooses a placement on `num_devices` devices.

    Args:
      num_devices: None for as many as divide the runs or the mini-batch evenly.
      num_runs: runs trained together.
      batch_size: examples in a mini-batch.

    Raises:
      ValueError: more devices than there are, or a number that divides neither.
    """
    available = jax.device_count()

    def divides(n):
        return num_runs % n == 0 or batch_size % n == 0

    if num_devices is None:
        num_devices = max(n for n in range(1, available + 1) if divides(n))
    at_least("num_devices", num_devices, 1)
    if num_devices > available:
        raise ValueError(f"num_devices={num_devices} exceeds the {available} there are: lower it")
    if not divides(num_devices):
        raise ValueError(
            f"num_devices={num_devices} divides neither the {num_runs} runs (--num_seeds times "
            f"swept values) nor --batch_size={batch_size}: change one of them"
        )
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("devices",))
    if not mesh.local_devices:
        raise ValueError(
            f"num_devices={num_devices} leaves none to process {jax.process_index()}: choose "
            f"--num_seeds or --batch_size so that all {available} devices get a share"
        )
    return Placement(mesh, by_run=num_runs % num_devices == 0)


def check_backend() -> None:
    """Raises ValueError if JAX finds no device of the kind that JAX_PLATFORMS asks for."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        raise ValueError(
            f"JAX_PLATFORMS={asked} finds no device: unset it, or install the plugin of JAX for it"
        ) from error


def check_memory(run: Any, placement: Placement) -> None:
    """Raises ValueError if runs of these shapes and their updates cannot fit into the memory."""
    needed = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run))
    if placement.by_run:
        needed //= placement.mesh.size
    device = placement.mesh.local_devices[0]
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = (device.memory_stats() or {}).get("bytes_limit", host)
    if needed > limit:
        raise ValueError(
            f"{needed / 2**30:,.0f} GiB are needed and {device.device_kind} has "
            f"{limit / 2**30:,.0f}: lower --width, --hidden_layers, --num_seeds or the swept values"
        )


def _check_free(coordinator: str, port: int) -> None:
    """Raises ValueError if the port cannot be had here; JAX's own attempt writes from C++ too."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ValueError(
            f"coordinator={coordinator} cannot be used ({error.strerror}): choose another port"
        ) from error


def join_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: int
) -> None:
    """Joins this process to the others of a multi-process run; does nothing without a coordinator.

    Args:
      coordinator: HOST:PORT of process 0.
      num_processes: how many there are.
      process_id: this one's number, from 0.
      timeout: seconds to wait for the others.

    Raises:
      ValueError: an incomplete set of flags, or an address that cannot be had.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise ValueError("coordinator= is missing: write --coordinator=HOST:PORT of process 0")
        return
    if num_processes is None or process_id is None or not 0 <= process_id < num_processes:
        raise ValueError(
            f"coordinator={coordinator} needs --num_processes and a --process_id from 0 to "
            "num_processes - 1"
        )
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"coordinator={coordinator} is not an address: write HOST:PORT")
    if process_id == 0:
        _check_free(coordinator, int(port))
    at_least("timeout", timeout, 1)

    def give_up():
        program = pathlib.Path(sys.argv[0]).name
        print(
            f"{program}: --coordinator={coordinator} did not bring {num_processes} processes "
            f"together within {timeout} s: start them all, check the address, or raise --timeout",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    # JAX's own timeout aborts the process from C++ with a stack trace, so ours comes first.
    timer = threading.Timer(timeout, give_up)
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, initialization_timeout=timeout + 60
        )
    except RuntimeError as error:
        raise ValueError(
            f"coordinator={coordinator} cannot be used ({error}): choose another port"
        ) from error
    finally:
        timer.cancel()
