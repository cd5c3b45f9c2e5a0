"""Checkpoints: what is read is what was written, or an error, whatever happened in between."""

import errno
import io
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
    monkeypatch.setattr(checkpoint, "VERSION", 3)
    checkpoint.save(tmp_path, 1, small(1))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 3, and this version of lrajax reads 2"):
        checkpoint.restore(tmp_path, small(0))


def test_the_first_format_is_read_still(tmp_path):
    """Written as it was then: by `np.savez`, with no word of the keys' generator."""
    file = io.BytesIO()
    np.savez(file, **{"a": small(1)["a"], "key": jax.random.key_data(small(1)["key"])})
    content = struct.pack("<I", 1) + file.getvalue()
    digest = checkpoint.hashlib.sha256(content).digest()
    checkpoint.path_of(tmp_path, 1).write_bytes(checkpoint.MAGIC + digest + content)
    assert_restored(tmp_path, 1)


@pytest.mark.parametrize("other", ["unsafe_rbg", "threefry2x32"])
def test_keys_come_back_as_of_their_generator_or_not_at_all(tmp_path, other):
    algo, optimizer = lrajax.dtp(lrajax.mlp((3, 2, 2))), optax.sgd(0.1)
    mine, theirs = (
        training.init_run(algo, optimizer, jax.random.key(0, impl=impl)) for impl in ("rbg", other)
    )
    checkpoint.save(tmp_path, 1, mine)
    key = checkpoint.restore(tmp_path, jax.eval_shape(lambda: mine)).tree.state.key
    np.testing.assert_array_equal(jax.random.bits(key, 9), jax.random.bits(mine.state.key, 9))
    with pytest.raises(CheckpointError, match=f"of rbg keys there and .* of {other} keys here"):
        checkpoint.restore(tmp_path, theirs)


@pytest.mark.parametrize(
    "tree",
    [
        {"epoch": 3, "rate": 0.5, "done": True, "w": np.ones(2)},
        {"file": np.ones(2), "allow_pickle": np.zeros(1)},
        {"a": {"b": np.ones(1)}, "a/b": np.zeros(2), "a~1b": np.arange(3)},
        {"a": np.ones(1), "a.npy": np.zeros(2)},
        {"läuft 学": [np.ones(1), {0: np.zeros(2)}], "": np.arange(3)},
        np.array(2.5),
    ],
)
def test_any_names_and_numbers_come_back(tmp_path, tree):
    checkpoint.save(tmp_path, 1, tree)
    restored = checkpoint.restore(tmp_path, tree).tree
    chex.assert_trees_all_equal(restored, tree)
    assert list(map(type, jax.tree.leaves(restored))) == list(map(type, jax.tree.leaves(tree)))


@pytest.mark.parametrize("arguments", [(3.0,), (-1,), (0,), ("1",), (1, 0), (1, 1.5)])
def test_a_step_that_is_none_is_refused_before_anything_is_written(tmp_path, arguments):
    step, *keep = arguments
    with pytest.raises(ValueError, match=r"^(step|keep)=.* must be a whole number, at least 1$"):
        checkpoint.save(tmp_path, step, small(1), *keep)
    assert not list(tmp_path.iterdir())


def test_only_files_by_our_own_names_are_ever_removed(tmp_path):
    names = ("checkpoint-best", "checkpoint-00000001.bak", "checkpoint-00000001 (copy)")
    for name in (*names, "checkpoint-3", "checkpoint-000000004", "checkpoint-best.tmp"):
        (tmp_path / name).write_text("mine")
    for name in ("checkpoint-500", "checkpoint-00000500"):
        (tmp_path / name).mkdir()
    strangers = {path.name for path in tmp_path.iterdir()}
    checkpoint.path_of(tmp_path, 9).with_suffix(".tmp").write_text("half")  # of a dead process
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, small(step))
    assert checkpoint.steps(tmp_path) == [2, 3]
    assert_restored(tmp_path, 3)
    checkpoint.remove(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == strangers


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
    with pytest.raises(TypeError, match="a is <U2"):
        checkpoint.save(tmp_path, 1, {"a": np.array(["no"])})


def test_half_precision_comes_back_bit_for_bit_and_anyone_can_read_it(tmp_path):
    values = np.array([1 / 3, 1e-40, -np.inf, 3e38, 0])
    dtypes = (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn)
    with np.errstate(over="ignore"):
        tree = {np.dtype(dtype).name: jnp.array(values, dtype) for dtype in dtypes}
    checkpoint.save(tmp_path, 1, tree)
    found = checkpoint.restore(tmp_path, jax.eval_shape(lambda: tree)).tree
    for name, array in found.items():
        assert array.dtype == name
        assert array.tobytes() == np.asarray(tree[name]).tobytes()
    with pytest.raises(checkpoint.CheckpointError, match=r"bfloat16 is bfloat16.*float32"):
        checkpoint.restore(tmp_path, {**tree, "bfloat16": jnp.zeros(5)})
    (tmp_path / "x.npz").write_bytes(checkpoint.to_npz(tree))
    with np.load(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(file["bfloat16"], tree["bfloat16"].astype(np.float32))


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
