"""Standardisation and augmentation, by hand and inside the compiled epoch."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import data, training
from lrajax.data import Examples, augment
from lrajax.runs.settings import Settings

RNG = np.random.default_rng(0)
SHAPE = (5, 7, 3)
IMAGES = RNG.normal(size=(400, *SHAPE)).astype(np.float32)


def shifted(image, down, right):
    """By hand: the image moved, 0 where nothing moves in."""
    moved = np.zeros_like(image)
    height, width, _ = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                moved[row, column] = image[row + down, column + right]
    return moved


def test_flip_mirrors_every_second_image_left_to_right(key):
    changed = np.asarray(jax.jit(augment.flip)(key, IMAGES))
    mirrored = np.array([not np.array_equal(a, b) for a, b in zip(changed, IMAGES, strict=True)])
    np.testing.assert_array_equal(changed[mirrored], IMAGES[mirrored][:, :, ::-1])
    assert 150 < mirrored.sum() < 250  # 5 standard deviations around 200


def test_crop_moves_by_up_to_four_pixels(key):
    moves = [(down, right) for down in range(-4, 5) for right in range(-4, 5)]
    changed = np.asarray(jax.jit(augment.crop)(key, IMAGES))
    counts = dict.fromkeys(moves, 0)
    for image, before in zip(changed, IMAGES, strict=True):
        (move,) = (m for m in moves if np.array_equal(shifted(before, *m), image))
        counts[move] += 1
    # Each of the 9 moves of either axis 44 times of 400, give or take 6.
    for axis in (0, 1):
        of_axis = [sum(n for m, n in counts.items() if m[axis] == move) for move in range(-4, 5)]
        assert min(of_axis) > 15
        assert max(of_axis) < 80


def test_cutout_blanks_a_square_around_any_pixel(key):
    shape = (6, 8, 3)  # half of the shorter side: 3
    images = np.ones((400, *shape), np.float32)
    blank = 1 - np.asarray(jax.jit(augment.cutout)(key, images))
    np.testing.assert_array_equal(blank[..., 0], blank[..., 1])
    np.testing.assert_array_equal(blank[..., 0], blank[..., 2])
    centres = set()
    for square in blank[..., 0]:
        rows, columns = np.flatnonzero(square.any(1)), np.flatnonzero(square.any(0))
        expected = np.zeros(shape[:2])
        expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
        np.testing.assert_array_equal(square, expected)
        assert len(rows) == 3 or rows[0] == 0 or rows[-1] == 5
        assert len(columns) == 3 or columns[0] == 0 or columns[-1] == 7
        centres.add((rows[0] + rows[-1], columns[0] + columns[-1]))
    assert len(centres) == 48  # every pixel was one


def test_grey_and_coloured_flat_images_are_changed_in_their_shape(key):
    flip = data.augmentation(["flip"], (2, 3))
    x = jnp.arange(60.0).reshape(10, 6)
    changed = np.asarray(flip(key, x)).reshape(10, 2, 3)
    whole = np.asarray(x).reshape(10, 2, 3)
    mirrored = ~(changed == whole).all((1, 2))
    assert 0 < mirrored.sum() < 10
    np.testing.assert_array_equal(changed[mirrored], whole[mirrored][..., ::-1])


def test_augmentations_follow_each_other_on_keys_of_their_own(key):
    both = data.augmentation(["flip", "crop"], SHAPE)
    first, second = jax.random.split(key)
    expected = augment.crop(second, augment.flip(first, IMAGES))
    flat = jnp.asarray(IMAGES.reshape(400, -1))
    np.testing.assert_array_equal(both(key, flat), expected.reshape(400, -1))


@pytest.mark.parametrize(
    ("names", "shape", "words"),
    [
        (["flop"], SHAPE, "augment='flop' is unknown: did you mean 'flip'"),
        (["flip", "flip"], SHAPE, "augment=flip,flip names one twice"),
        (["flip"], (105,), "augment=flip needs images"),
    ],
)
def test_unfit_augmentations(names, shape, words):
    with pytest.raises(ValueError, match=words):
        data.augmentation(names, shape)


def dataset(shape=SHAPE, size=60, max_pixel=255.0):
    sets = []
    for seed, count in enumerate((size, 20, 20)):
        rng = np.random.default_rng(seed)
        x = rng.integers(1, 200, size=(count, *shape), dtype=np.uint8)
        x[..., -1] //= 1 + seed  # other moments in other parts
        sets.append(Examples(x.reshape(count, -1), np.arange(count, dtype=np.int32) % 2))
    return data.Dataset(*sets, shape, 2, max_pixel, "made")


@pytest.mark.parametrize("shape", [SHAPE, (5, 7), (35,)])
def test_standardising_by_the_channels_of_the_training_part(shape):
    made = dataset(shape)
    by_channel = (made.train.x / 255).reshape(-1, 3 if shape == SHAPE else 1)
    mean, std = data.channel_moments(made)
    np.testing.assert_allclose(mean, by_channel.mean(0), rtol=1e-10)
    np.testing.assert_allclose(std, by_channel.std(0), rtol=1e-10)
    x = made.test.x / np.float32(255)
    expected = (x.reshape(-1, len(mean)) - mean) / std
    found = jax.jit(data.standardizer(made))(x)
    np.testing.assert_allclose(found, expected.reshape(x.shape), rtol=1e-5, atol=1e-5)


def test_a_channel_that_never_changes_becomes_0():
    made = dataset()
    x = made.train.x.copy().reshape(-1, 3)
    x[:, 1] = 7
    made = made._replace(train=Examples(x.reshape(60, -1), made.train.y))
    standard = data.standardizer(made)(made.train.x / np.float32(255)).reshape(-1, 3)
    np.testing.assert_allclose(standard[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(standard.std(0), [1, 0, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "standardize", "standardized"),
    [(SHAPE, None, True), ((5, 7), None, False), (SHAPE, False, False), ((5, 7), True, True)],
)
def test_colours_are_standardised_unless_said_otherwise(shape, standardize, standardized):
    made = dataset(shape)
    settings = Settings("backprop", "sgd", 0.1, "made", 1, 4, "tanh", 4, 1, (0,), {})
    settings = (
        settings if standardize is None else dataclasses.replace(settings, standardize=standardize)
    )
    scale = settings.scale(made)
    batch = training.to_batch(made.train, jnp.arange(60), **scale)
    plain = made.train.x / np.float32(255)
    expected = data.standardizer(made)(plain) if standardized else plain
    np.testing.assert_allclose(batch.x, expected, rtol=1e-5, atol=1e-6)


def made_epoch(change=None):
    network = lrajax.mlp((105, 4, 2))
    algo = lrajax.backprop(network)
    optimizer = optax.sgd(0.01)
    step = training.make_train_step(algo, optimizer)
    standardize = data.standardizer(dataset())
    epoch = training.make_train_epoch(step, 20, 2, 255.0, standardize, change)
    return algo, optimizer, epoch


def test_every_mini_batch_of_an_epoch_is_changed_otherwise(key):
    """The x that a step sees: standardised, then changed, by keys that no other draw shares."""
    seen = []

    def step(state, batch):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), batch.x, ordered=True)
        return state, 0.0

    made = dataset()
    standardize = data.standardizer(made)
    crop = data.augmentation(["crop"], SHAPE)
    plain, changed = (
        training.make_train_epoch(step, 20, 2, 255.0, standardize, change)
        for change in (None, crop)
    )
    state = training.TrainState(jnp.zeros(2), (), key, jnp.array(0))
    plain(state, made.train)
    jax.effects_barrier()
    before, seen = np.concatenate(seen), []
    changed(state, made.train)
    jax.effects_barrier()
    after = np.concatenate(seen)
    # The same shuffle: each image is the one of before, moved.
    moves = []
    for image, whole in zip(after.reshape(-1, *SHAPE), before.reshape(-1, *SHAPE), strict=True):
        found = [
            (down, right)
            for down in range(-4, 5)
            for right in range(-4, 5)
            if np.allclose(shifted(whole, down, right), image, atol=1e-6)
        ]
        moves += found[:1]
    assert len(moves) == 60
    batches = [moves[start : start + 20] for start in (0, 20, 40)]
    assert batches[0] != batches[1] != batches[2] != batches[0]


def test_augmented_runs_resume_vmap_and_differ_by_seed():
    made = dataset()
    change = data.augmentation(["flip", "crop", "cutout"], SHAPE)
    algo, optimizer, epoch = made_epoch(change)
    epoch = jax.jit(epoch)
    starts = [training.init_state(algo, optimizer, jax.random.key(seed)) for seed in (0, 1)]
    ends = []
    for start in starts:
        state, _ = epoch(start, made.train)
        kept = jax.tree.map(
            lambda a: a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else np.asarray(a), state
        )
        straight, _ = epoch(state, made.train)
        resumed, _ = epoch(kept, made.train)
        chex.assert_trees_all_equal(straight.params, resumed.params)
        ends.append(straight)
    together = jax.tree.map(lambda *a: jnp.stack(a), *starts)
    several = jax.jit(jax.vmap(made_epoch(change)[2], (0, None)))
    for _ in range(2):
        together, _ = several(together, jax.tree.map(jnp.asarray, made.train))
    for i, end in enumerate(ends):
        ours = jax.tree.map(lambda a, i=i: a[i], together.params)
        chex.assert_trees_all_close(ours, end.params, rtol=1e-4, atol=1e-5)
    plain, _ = jax.jit(made_epoch()[2])(starts[0], made.train)
    augmented, _ = epoch(starts[0], made.train)
    assert not np.allclose(plain.params.forward[0]["w"], augmented.params.forward[0]["w"])


# --- Examples that do not fit ------------------------------------------------------------------


FEW = Examples(np.zeros((4, 5), np.uint8), np.array([0, 1, 0, 1], np.int32))
UNFIT = {
    "more labels": (FEW._replace(y=np.zeros(8, np.int32)), "4 images and labels of shape"),
    "a label too high": (FEW._replace(y=np.array([1, 2, 1, 2])), "labels run from 1 to 2"),
    "a label below 0": (FEW._replace(y=np.array([-1, 0, 1, 0])), "labels run from -1 to 1"),
    "one-hot": (FEW._replace(y=np.eye(4)), "labels of shape"),
    "a fraction": (FEW._replace(y=np.zeros(4)), "labels are float"),
}


@pytest.mark.parametrize(("examples", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_examples_that_do_not_fit_are_refused_wherever_they_go(examples, words, key):
    algo = lrajax.backprop(lrajax.mlp((5, 4, 2)))
    optimizer = optax.sgd(0.1)
    step = training.make_train_step(algo, optimizer)
    params = reference.make_params(algo)
    state = training.TrainState(params, optimizer.init(params), key, jnp.array(0))
    with pytest.raises(ValueError, match=words):
        data.check_examples(examples, 2)
    with pytest.raises(ValueError, match=words):
        training.to_batch(examples, jnp.arange(4), 2)
    with pytest.raises(ValueError, match=words):
        training.evaluate(algo, params, examples, 2)
    with pytest.raises(ValueError, match=words):
        training.make_train_epoch(step, 2, 2)(state, examples)
    if "run from" not in words:  # values are unknown while tracing, shapes and types are not
        with pytest.raises(ValueError, match=words):
            jax.jit(training.to_batch, static_argnums=2)(examples, jnp.arange(4), 2)


def test_an_experiment_refuses_examples_that_do_not_fit():
    from lrajax.runs.experiment import Experiment

    settings = Settings("backprop", "sgd", 0.1, "made", 1, 4, "tanh", 4, 1, (0,), {})
    made = dataset()
    for part in ("train", "valid", "test"):
        examples = getattr(made, part)
        bad = made._replace(**{part: examples._replace(y=examples.y + 1)})
        with pytest.raises(ValueError, match=f"made: {part}: labels run from 1 to 2"):
            Experiment(settings, bad)
    with pytest.raises(ValueError, match="augment=flip needs images"):
        Experiment(dataclasses.replace(settings, augment=("flip",)), dataset((35,)))


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float64, np.float16, np.int64])
@pytest.mark.parametrize("labels", [np.uint8, np.int8, np.int64, np.bool_])
def test_batches_are_float32_whatever_the_examples_are(dtype, labels):
    x, y = np.array([[0, 1], [1, 0], [1, 1]]), np.array([1, 0, 1])
    batch = training.to_batch(Examples(x.astype(dtype), y.astype(labels)), jnp.arange(3), 2)
    assert batch.x.dtype == batch.y.dtype == jnp.float32
    np.testing.assert_array_equal(batch.x, x)
    np.testing.assert_array_equal(batch.y, [[0, 1], [1, 0], [0, 1]])


def test_many_classes_with_labels_of_a_byte():
    """With labels compared in their own type, class 200 would be class -56."""
    examples = Examples(np.zeros((2, 1), np.uint8), np.array([0, 200], np.uint8))
    batch = training.to_batch(examples, jnp.arange(2), 300)
    np.testing.assert_array_equal(batch.y.argmax(1), [0, 200])
    np.testing.assert_array_equal(batch.y.sum(1), [1, 1])
