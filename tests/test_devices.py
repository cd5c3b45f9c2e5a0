"""Several devices and several processes give the parameters that one device gives."""

import os
import socket
import subprocess
import sys
import types

import commands
import numpy as np
import pytest

# One epoch of the digits in mini-batches of 64 is 21 steps, and its parameters are the best so far.
FLAGS = ("--epochs=1", "--batch_size=64", "--width=16", "--hidden_layers=2")


def start(out, *flags, devices=1):
    """Starts train.py on a number of emulated devices."""
    emulated = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "XLA_FLAGS": emulated}
    return commands.start("train.py", *FLAGS, *flags, f"--out_dir={out}", env=env)


def parameters(out, *processes):
    """Waits for the processes; what they trained."""
    for process in processes:
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr
    return dict(np.load(out / "best_params.npz"))


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=1e-5, rtol=0, err_msg=name)


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module", params=[("lra_e", "sgd"), ("dtp_sigma", "rmsprop")], ids="-".join)
def case(request, tmp_path_factory):
    """Flags of a rule, and its parameters after one epoch on one device."""
    flags = [f"--algo={request.param[0]}", f"--opt={request.param[1]}"]
    out = tmp_path_factory.mktemp("one")
    return flags, parameters(out, start(out, *flags))


def test_four_devices_agree_with_one(case, tmp_path):
    flags, expected = case
    process = start(tmp_path, *flags, "--num_devices=4", devices=4)
    assert_same(parameters(tmp_path, process), expected)


@pytest.mark.parametrize("case", [("dtp_sigma", "rmsprop")], indirect=True)
def test_two_processes_agree_with_one(case, tmp_path):
    flags, expected = case
    join = (*flags, f"--coordinator=localhost:{free_port()}", "--num_processes=2")
    # Interpreters of their own: what is forked ends without JAX's parting from the other process.
    script = commands.EXPERIMENTS / "train.py"
    command = (sys.executable, script, *FLAGS, *join, f"--out_dir={tmp_path}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, f"--process_id={i}"], **pipes) for i in range(2)]
    assert_same(parameters(tmp_path, *processes), expected)


def test_a_port_that_is_taken_is_named():
    from lrajax.runs import placement

    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(
            ValueError, match=rf"^coordinator={address} cannot be used \(Address .*"
        ):
            placement.join_processes(address, 1, 0, timeout=5)


def test_a_process_whose_devices_get_no_share_says_how_they_would(monkeypatch):
    from lrajax.runs import placement

    elsewhere = types.SimpleNamespace(local_devices=[])
    monkeypatch.setattr(placement, "Mesh", lambda *_: elsewhere)
    with pytest.raises(ValueError, match=r"num_devices=1 leaves none to process 0.*--batch_size"):
        placement.place(1, num_runs=1, batch_size=50)
