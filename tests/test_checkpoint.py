"""Checkpoints: what is read is what was written, or an error, whatever happened in between."""

import errno
import os
import struct

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrajax
from lrajax import checkpoint, training
from lrajax.checkpoint import CheckpointError, DamagedError


@pytest.fixture(scope="module")
def run():
    algo, optimizer = lrajax.lra_e(lrajax.mlp((5, 4, 3, 2))), optax.adam(1e-3)
    runs = jax.vmap(lambda seed: training.init_run(algo, optimizer, jax.random.key(seed)))
    return jax.jit(runs)(jnp.arange(2))


def small(step):
    return {"a": np.arange(3.0) + step, "key": jax.random.key(step)}


def assert_restored(folder, step):
    restored = checkpoint.restore(folder, small(0))
    assert restored.step == step
    if step:
        chex.assert_trees_all_equal(checkpoint.plain(restored.tree), checkpoint.plain(small(step)))
    return restored


def damage(path, edit):
    content = bytearray(path.read_bytes())
    path.write_bytes(edit(content))


def test_a_whole_run_comes_back_bit_for_bit(run, tmp_path):
    checkpoint.save(tmp_path, 7, run)
    restored = checkpoint.restore(tmp_path, jax.eval_shape(lambda: run))
    assert (restored.step, restored.passed_over) == (7, [])
    assert jax.tree.structure(restored.tree) == jax.tree.structure(run)
    chex.assert_trees_all_equal(checkpoint.plain(restored.tree), checkpoint.plain(run))
    assert restored.tree.state.key.dtype == run.state.key.dtype


def test_the_last_two_are_kept_and_later_ones_dropped_after_a_return(tmp_path):
    assert_restored(tmp_path, 0)
    for step in (1, 2, 3, 10):
        checkpoint.save(tmp_path, step, small(step))
    assert checkpoint.steps(tmp_path) == [3, 10]
    checkpoint.save(tmp_path, 4, small(4))
    assert checkpoint.steps(tmp_path) == [3, 4]
    assert_restored(tmp_path, 4)
    assert checkpoint.restore(tmp_path, small(0), last=3).step == 3
    checkpoint.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_any_altered_bit_or_cut_is_noticed_and_the_previous_one_used(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("c")
    for step in (1, 2):
        checkpoint.save(folder, step, small(step))
    path = checkpoint.path_of(folder, 2)
    size = path.stat().st_size
    at, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7))

    def flip(content):
        content[at] ^= 1 << bit
        return content

    edits = [flip, lambda content: content[:at], lambda content: content + b"\0"]
    damage(path, data.draw(st.sampled_from(edits)))
    with pytest.raises(DamagedError, match="damaged"):
        checkpoint.load(path, small(0))
    (reason,) = assert_restored(folder, 1).passed_over
    assert str(path) in reason


def test_all_damaged_is_none(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, small(step))
        damage(checkpoint.path_of(tmp_path, step), lambda content: content[:100])
    assert len(assert_restored(tmp_path, 0).passed_over) == 2


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"a": np.zeros(3)}, "key is uint32"),
        ({**small(0), "b": np.zeros(1)}, "b is missing there"),
        ({**small(0), "a": np.zeros(4)}, r"float64\[3\] there and float64\[4\] here"),
        ({**small(0), "a": np.zeros(3, np.float32)}, r"float32\[3\] here"),
    ],
)
def test_another_tree_is_refused(tmp_path, like, words):
    checkpoint.save(tmp_path, 1, small(1))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.restore(tmp_path, like)


def test_another_format_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    checkpoint.save(tmp_path, 1, small(1))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2, and this version of lrajax reads 1"):
        checkpoint.restore(tmp_path, small(0))


def test_loading_executes_nothing(tmp_path, monkeypatch):
    """Even a pickle behind a valid checksum is not opened."""
    content = struct.pack("<I", checkpoint.VERSION)
    with open(tmp_path / "x.npz", "wb") as file:
        np.savez(file, a=np.array([print], object))
    content += (tmp_path / "x.npz").read_bytes()
    digest = checkpoint.hashlib.sha256(content).digest()
    checkpoint.path_of(tmp_path, 1).write_bytes(checkpoint.MAGIC + digest + content)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        checkpoint.restore(tmp_path, {"a": np.zeros(1)})


def test_a_type_that_would_not_come_back_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a is bfloat16"):
        checkpoint.save(tmp_path, 1, {"a": jnp.zeros(2, jnp.bfloat16)})


CALLS = ("fsync", "replace", "open", "unlink")  # whatever a save asks of the system


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
@pytest.mark.parametrize("after", range(8))
def test_a_save_that_ends_at_any_call_leaves_a_checkpoint(tmp_path, monkeypatch, failure, after):
    """KeyboardInterrupt stands for death: nothing of ours handles it."""
    for step in (1, 2):
        checkpoint.save(tmp_path, step, small(step))
    count = 0

    def failing(call):
        def instead(*args, **kwargs):
            nonlocal count
            count += 1
            if count > after:
                raise failure
            return call(*args, **kwargs)

        return instead

    for name in CALLS:
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    try:
        checkpoint.save(tmp_path, 3, small(3))
        ended = False
    except (KeyboardInterrupt, OSError):
        ended = True
    monkeypatch.undo()
    assert ended == (count > after)
    restored = checkpoint.restore(tmp_path, small(0))
    assert restored.passed_over == []
    assert_restored(tmp_path, restored.step)
    assert restored.step in (2, 3) if ended else restored.step == 3
    checkpoint.save(tmp_path, 4, small(4))  # and the next save clears up
    assert {path.name for path in tmp_path.iterdir()} == {
        path.name
        for path in (checkpoint.path_of(tmp_path, restored.step), checkpoint.path_of(tmp_path, 4))
    }


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    checkpoint.write(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        checkpoint.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
