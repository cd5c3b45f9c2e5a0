"""Pooling, norms and blocks against NumPy, and every rule on a network that has them all."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax
from lrajax import layers, networks

KEY = jax.random.key(5)
RNG = np.random.default_rng(1)
every_rule = pytest.mark.parametrize("name", lrajax.ALGORITHMS)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def blocks_of(image, size):
    """(row, column, block) of every whole block of a NumPy image."""
    for r in range(image.shape[0] // size):
        for c in range(image.shape[1] // size):
            yield r, c, image[r * size : (r + 1) * size, c * size : (c + 1) * size]


@pytest.mark.parametrize(("size", "sides"), [(2, (5, 4)), (3, (6, 7))])
def test_pooling_is_that_of_loops_and_an_error_returns_to_what_was_pooled(size, sides):
    rows, columns = (side // size for side in sides)
    plain = layers.reshaped(layers.dense(rows * columns * 2, 3), (rows, columns, 2))
    theta = {"w": draw(rows * columns * 2, 3), "b": draw(3)}
    z, error = draw(2, *sides, 2), draw(2, 3)
    at_pooled = (error @ theta["w"].T).reshape(2, rows, columns, 2)
    for kind in ("max", "average"):
        layer = layers.pooled(plain, size, kind, in_shape=(*sides, 2))
        pooled, below = np.zeros((2, rows, columns, 2)), np.zeros_like(z)
        for b, image in enumerate(z):
            for r, c, block in blocks_of(image, size):
                share = np.full(block.shape, 1 / size**2)
                if kind == "max":
                    share = block == block.max(axis=(0, 1))
                pooled[b, r, c] = (block * share).sum(axis=(0, 1))
                where = np.s_[b, r * size : (r + 1) * size, c * size : (c + 1) * size]
                below[where] = share * at_pooled[b, r, c]
        h = pooled.reshape(2, -1) @ theta["w"] + theta["b"]
        close(layers.pre(layer, theta, z), h)
        close(layers.feedback(layer, {"w": theta["w"]}, z, error), below)
        close(layers.vjp_theta(layer, theta, z, error)["w"], pooled.reshape(2, -1).T @ error)


def test_equal_maxima_share_the_error():
    layer = layers.pooled(layers.reshaped(layers.dense(1, 1), (1, 1, 1)), 2)
    z = np.array([[3, 1], [3, 0]], np.float32).reshape(1, 2, 2, 1)
    below = layers.feedback(layer, {"w": np.ones((1, 1), np.float32)}, z, np.ones((1, 1)))
    close(below.reshape(2, 2), [[0.5, 0], [0.5, 0]])


def test_global_pooling_and_standardising_come_before_the_weights():
    theta, z = {"w": draw(2, 3), "b": draw(3)}, draw(4, 3, 5, 2)
    layer = layers.globally_pooled(layers.dense(2, 3), (3, 5, 2))
    close(layers.pre(layer, theta, z), z.mean(axis=(1, 2)) @ theta["w"] + theta["b"][None])
    flat = draw(4, 2)
    centred = flat - flat.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    layer = layers.standardised(layers.dense(2, 3))
    close(layers.pre(layer, theta, flat), expected @ theta["w"] + theta["b"][None])


@pytest.mark.parametrize(
    ("make", "axes", "shape"),
    [
        (lambda layer: layers.group_norm(layer, 2), (1, 2, 4), (5, 3, 3, 2, 2)),
        (lambda layer: layers.layer_norm(layer, gain=True), (1, 2, 3), (5, 3, 3, 4)),
        (layers.batch_norm, (0, 1, 2), (5, 3, 3, 4)),
    ],
    ids=["group", "layer", "batch"],
)
def test_norms_with_a_gain_are_those_of_numpy(make, axes, shape):
    plain = layers.conv((3, 3, 2), 4, 3)
    layer = make(plain)
    theta = {"w": draw(3, 3, 2, 4), "b": draw(4), "gain": draw(4)}
    z, error = draw(5, 3, 3, 2), draw(5, 3, 3, 4)
    bare = {"w": theta["w"], "b": np.zeros(4, np.float32)}
    h = np.asarray(layers.pre(plain, bare, z)).reshape(shape)
    centred = h - h.mean(axis=axes, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + 1e-5)
    close(layers.pre(layer, theta, z), normal.reshape(5, 3, 3, 4) * theta["gain"] + theta["b"])
    e = {"w": theta["w"], "gain": theta["gain"]}
    close(layers.feedback(layer, e, z, error), layers.vjp_below(layer, theta, z, error))
    assert set(layer.init_feedback(KEY, lrajax.initializers.GLOROT)) == set(e)


def test_batch_norm_keeps_running_statistics_for_predict():
    plain = layers.dense(3, 2)
    layer = layers.batch_norm(plain, momentum=0.75)
    theta = {"w": draw(3, 2), "b": draw(2), "gain": draw(2)}
    z = draw(6, 3)
    state = layer.init_state(theta)
    chex.assert_trees_all_equal(state, {"mean": np.zeros(2), "var": np.ones(2)})
    h = z @ theta["w"]
    kept = jax.device_get(layers.remember(layer, theta, state, z))
    close(kept["mean"], 0.25 * h.mean(axis=0))
    close(kept["var"], 0.75 + 0.25 * h.var(axis=0))
    answer = layers.pre(layer, layers.recall(theta, kept), z)
    normal = (h - kept["mean"]) / np.sqrt(kept["var"] + 1e-5)
    close(answer, normal * theta["gain"] + theta["b"])


def test_batch_norm_of_feature_maps_keeps_a_number_for_each():
    layer = layers.batch_norm(layers.conv((4, 5, 2), 3, 3), momentum=0.75)
    theta = {**layer.init(KEY, lrajax.initializers.GLOROT), "gain": draw(3)}
    z = draw(6, 4, 5, 2)
    plain = layers.conv((4, 5, 2), 3, 3)
    h = layers.pre(plain, {"w": theta["w"], "b": np.zeros(3)}, z)
    kept = layers.remember(layer, theta, layer.init_state(theta), z)
    close(kept["mean"], 0.25 * h.mean(axis=(0, 1, 2)))
    close(kept["var"], 0.75 + 0.25 * h.var(axis=(0, 1, 2)))


def test_a_chain_is_its_parts_in_turn():
    parts = (layers.dense(3, 4), layers.batch_norm(layers.dense(4, 2)), layers.dense(2, 5, "relu"))
    layer = layers.chain(*parts)
    theta = layer.init(KEY, lrajax.initializers.GLOROT)
    z = draw(6, 3)
    inputs = [z]
    for i, part in enumerate(parts):
        h = layers.pre(part, theta[str(i)], inputs[-1])
        inputs.append(layers.post(part, h))
    close(layers.pre(layer, theta, z), h)
    close(layers.post(layer, h), inputs[-1])
    kept = layers.remember(layer, theta, layer.init_state(theta), z)
    middle = layers.remember(parts[1], theta["1"], parts[1].init_state(theta["1"]), inputs[1])
    chex.assert_trees_all_close(kept, {"0": (), "1": middle, "2": ()}, rtol=1e-5)
    answer = layers.pre(layer, layers.recall(theta, kept), z)
    assert not jnp.allclose(answer, h, atol=1e-3)
    with pytest.raises(ValueError, match=r"a part takes \(5,\), the one below gives \(4,\)"):
        layers.chain(layers.dense(3, 4), layers.dense(5, 4))
    with pytest.raises(ValueError, match="no parts"):
        layers.chain()


def test_a_skip_may_go_through_a_projection():
    block, projection = layers.dense(3, 2), layers.dense(3, 2, "identity")
    layer = layers.residual(block, projection)
    theta = layer.init(KEY, lrajax.initializers.GLOROT)
    z, error = draw(4, 3), draw(4, 2)
    w, p = (np.asarray(theta[name]["w"]) for name in ("block", "projection"))
    close(layers.pre(layer, theta, z), z @ (w + p))
    e = {name: {"w": theta[name]["w"]} for name in theta}
    close(layers.feedback(layer, e, z, error), error @ (w + p).T)
    with pytest.raises(ValueError, match="projection goes from and to"):
        layers.residual(block, layers.dense(2, 2))


@functools.cache
def wide_network(batch_norm=False):
    """Flat images of 6 × 6 through all of it."""
    first = layers.conv((6, 6, 1), 4, 2, padding="VALID", dilation=2, activation="relu")
    norm = layers.batch_norm if batch_norm else functools.partial(layers.group_norm, groups=2)
    second = layers.pooled(norm(layers.conv((2, 2, 4), 4, 2, groups=2)), 2)
    inner = layers.chain(
        layers.layer_norm(layers.dense(4, 3, "gelu"), gain=True), layers.dense(3, 8)
    )
    block = layers.standardised(layers.residual(inner, layers.dense(4, 8)))
    third = layers.pooled(layers.reshaped(block, (1, 1, 4)), 2, "average")
    output = layers.globally_pooled(layers.dense(2, 3, "softmax"), (2, 2, 2))
    return lrajax.Network(
        (layers.reshaped(first, (36,)), second, third, layers.reshaped(output, (8,))),
        lrajax.losses.categorical,
    )


def plain(name, network):
    """The rule without noise or decay."""
    return lrajax.ALGORITHMS[name](network, **lrajax.RULES[name].plain)


def check_parts_and_seeds(rule, network):
    """Shapes; a mini-batch is the sum of its parts; seeds side by side are those one by one."""
    batch = reference.make_batch(network, 4)
    seeds = [reference.make_params(rule, seed) for seed in (0, 1)]
    compute = functools.partial(reference.compute, rule)
    alone = jax.jit(compute)
    lambda_, updates = alone(seeds[0], batch, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, seeds[0])
    chex.assert_tree_all_finite((lambda_, updates))
    for field in (lambda_.h, lambda_.z, lambda_.targets, lambda_.errors):
        assert [a.shape for a in field] == [(4, *layer.out_shape) for layer in network.layers]

    # Each half twice, so that all mini-batches have one shape.
    rows = np.array([[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 2, 3]])
    side_by_side = (
        jax.tree.map(lambda *a: jnp.stack(a), seeds[0], seeds[0], seeds[1]),
        jax.tree.map(lambda a: a[rows], batch),
    )
    together = jax.jit(jax.vmap(compute, (0, 0, None)))(*side_by_side, KEY)
    near = functools.partial(chex.assert_trees_all_close, rtol=1e-3, atol=1e-4)
    halves = jax.tree.map(lambda a: (a[0] + a[1]) / 2, together[1].forward)
    near(updates.forward, halves)
    near(alone(seeds[1], batch, KEY), jax.tree.map(lambda a: a[2], together))


@every_rule
def test_every_rule_steps_on_every_wider_layer(name):
    network = wide_network()
    check_parts_and_seeds(plain(name, network), network)


def test_shared_weights_step_by_examples_and_seeds():
    network = networks.recurrent((3, 2), 4, width=3)
    check_parts_and_seeds(lrajax.tied(plain("lra_e", network), (0, 0, 0, 3)), network)


# Those whose errors come down from layer to layer. The others' come straight from the output, or
# settle, and then a unit feels what is below it too.
def test_a_projected_block_keeps_the_states_of_both_parts():
    parts = {name: layers.batch_norm(layers.dense(3, 2)) for name in ("block", "projection")}
    layer, z = layers.residual(*parts.values()), draw(5, 3)
    theta = layer.init(KEY, lrajax.initializers.GLOROT)
    state = layers.remember(layer, theta, layer.init_state(theta), z)
    for name, part in parts.items():
        alone = layers.remember(part, theta[name], part.init_state(theta[name]), z)
        chex.assert_trees_all_equal(state[name], alone)


FROM_ABOVE = [
    name
    for name in lrajax.ALGORITHMS
    if name not in ("dfa", "direct_kolen_pollack", "equil_prop", "predictive_coding")
]
WITHOUT_SKIPS = {"rec_lra": {"stride": 3}}


def pooled_everywhere():
    """Layers of one shape, 4 × 4 flat, each of which looks at the maxima of the one below."""

    def make(n_out, activation):
        inner = layers.reshaped(layers.dense(4, n_out, activation), (2, 2, 1))
        return layers.reshaped(layers.pooled(inner, 2), (16,))

    hidden = [make(16, "tanh") for _ in range(3)]
    return lrajax.Network((*hidden, make(3, "softmax")), lrajax.losses.categorical)


def computed(name, **arguments):
    """Parameters, Λ and updates of a rule on that network."""
    network = pooled_everywhere()
    rule = lrajax.ALGORITHMS[name](network, **arguments)
    params, batch = reference.make_params(rule), reference.make_batch(network, 4)
    compute = functools.partial(reference.compute_whole, rule)
    return params, *compute(params, batch, KEY)


def maxima(z):
    """Where the flat maps [B, 16] have the maxima of their blocks: [B, 4 blocks, 16], 0 or 1."""
    found = np.zeros((len(z), 4, 16))
    for example, image in zip(found, np.reshape(z, (-1, 4, 4)), strict=True):
        for r, c, block in blocks_of(image, 2):
            row, column = divmod(int(block.argmax()), 2)
            example[2 * r + c, 4 * (2 * r + row) + 2 * c + column] = 1
    return found


@pytest.mark.parametrize("name", FROM_ABOVE)
def test_errors_go_to_the_units_that_were_pooled(name):
    """And nowhere else, whichever activity the rule hands to the layer above."""
    _, lambda_, _ = computed(name, **WITHOUT_SKIPS.get(name, {}))
    for z, error in zip(lambda_.z[:-1], lambda_.errors[:-1], strict=True):
        chosen = maxima(z).any(axis=1)
        np.testing.assert_array_equal(np.asarray(error) != 0, chosen)


@pytest.mark.parametrize("name", ["dtp", "dtp_sigma"])
def test_decoders_give_to_the_units_that_were_pooled_and_learn_from_them(name):
    params, lambda_, updates = computed(name)
    for l, cycle in zip((1, 2), lambda_.aux, strict=True):
        chosen, decoder = maxima(lambda_.z[l - 1]), jax.device_get(params.feedback[l])
        # Block by block E's column, at the block's maximum.
        h = np.einsum("bu,ku,bki->bi", cycle.code, decoder["w"], chosen) + decoder["b"][None]
        close(cycle.h, h)
        z = np.tanh(h)
        delta = -2 * (np.asarray(cycle.corrupted) - z) * (1 - z**2)
        close(updates.feedback[l]["b"], delta.sum(axis=0))
        close(updates.feedback[l]["w"], np.einsum("bi,bki,bu->ku", delta, chosen, cycle.code))


def test_rec_lras_e_learns_from_the_displacement_of_the_units_that_were_pooled():
    params, lambda_, updates = computed("rec_lra", e_update="displacement", stride=3)
    for l in (1, 2, 3):
        chosen, error = maxima(lambda_.z[l - 1]), np.asarray(lambda_.errors[l])
        # γ d eᵀ with γ = 1, block by block at its maximum, where d is E e.
        displaced = np.einsum("bu,ku->bk", error, params.feedback[l]["w"])
        assert (chosen.sum(axis=2) == 1).all()
        close(updates.feedback[l]["w"], displaced.T @ error)


def mirrored(params, network):
    """E that holds W."""
    e = tuple(layer.init_feedback(KEY, lrajax.initializers.GLOROT) for layer in network.layers)
    return params._replace(feedback=((), *lrajax.steps.mirrored(e, params.forward)[1:]))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_with_e_equal_to_w_rules_tend_to_backprop_through_all_of_it(batch_norm):
    """Kolen-Pollack is backprop; LRA-E V2 for a small error, which a hop scales by 2β, 1 here."""
    network = wide_network(batch_norm)
    rules = {
        "backprop": lrajax.backprop(network),
        "kolen_pollack": lrajax.kolen_pollack(network, decay=0.0),
        "lra_e": lrajax.lra_e(network, beta=0.5, derivative=False),
    }
    params, batch = reference.make_params(rules["backprop"]), reference.make_batch(network, 4)
    away = draw(4, 3)
    away -= away.mean(axis=1, keepdims=True)

    @jax.jit
    def found():
        y = lrajax.steps.predict(network, params.forward, batch.x) + 2e-3 * away

        def loss(forward):
            z = lrajax.steps.predict(network, forward, batch.x)
            return network.output_loss.value(y, z).sum()

        updates = {
            name: reference.compute(rule, mirrored(params, network), lrajax.Batch(batch.x, y))[1]
            for name, rule in rules.items()
        }
        return jax.grad(loss)(params.forward), {n: u.forward for n, u in updates.items()}

    grad, updates = found()
    for name, tolerance in (("backprop", 1e-3), ("kolen_pollack", 1e-3), ("lra_e", 0.03)):
        for update, expected in zip(updates[name], grad, strict=True):
            scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
            chex.assert_trees_all_close(update, expected, rtol=0, atol=tolerance * scale)


def test_dtps_topmost_hidden_target_goes_down_through_the_output_layer():
    network = wide_network()
    rule = lrajax.dtp(network, target_rate=0.3)
    params, batch = reference.make_params(rule), reference.make_batch(network, 4)
    lambda_ = jax.jit(rule.compute_targets)(params, batch, key=KEY)

    def loss(z):
        output = network.layers[-1]
        h = layers.pre(output, params.forward[-1], z)
        return network.output_loss.value(batch.y, layers.post(output, h)).sum()

    expected = lambda_.z[-2] - 0.3 * jax.jit(jax.grad(loss))(lambda_.z[-2])
    chex.assert_trees_all_close(lambda_.targets[-2], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "norm",
    [
        layers.batch_norm,
        functools.partial(layers.layer_norm, gain=True),
        functools.partial(layers.group_norm, groups=1),
    ],
)
def test_a_gain_is_a_number_a_feature(norm):
    layer = norm(layers.conv((4, 5, 2), 3, 1))
    theta = jax.eval_shape(lambda key: layer.init(key, lrajax.initializers.GLOROT), KEY)
    assert theta["gain"].shape == (3,)


def test_check_layer_passes_the_librarys_own():
    layers.check_layer(layers.pooled(layers.conv((1, 1, 2), 3, 2), 2))
    layers.check_layer(layers.batch_norm(layers.dense(3, 2)), affine=False)


PLAIN = layers.dense(3, 3)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_check_layer_judges_by_the_size_of_what_it_compares(factor):
    """A share of 1e-2 is too much of any, and rounding is nothing."""

    def pre(theta, z):
        return factor * PLAIN.pre(theta, z)

    def backward(e, z, error):
        return factor * (e["w"] @ error)

    scaled = PLAIN._replace(pre=pre, feedback=backward)
    layers.check_layer(scaled)
    off = scaled._replace(feedback=lambda e, z, error: 1.01 * backward(e, z, error))
    with pytest.raises(ValueError, match="not the transpose"):
        layers.check_layer(off)
    layers.check_layer(off, tolerance=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_shape": (4,)}, r"pre gives \(3,\) for an example, not \(4,\)"),
        ({"in_shape": (4,)}, "pre.theta, z_below. fails"),
        ({"post": lambda h: h[:2]}, "post gives"),
        ({"feedback": lambda e, z, error: error @ e["w"]}, "not the transpose"),
        ({"feedback": lambda e, z, error: e["w"] @ error**3}, "not the transpose"),
        (
            {"pre": lambda theta, z: z @ theta["w"] ** 2, "feedback": None},
            "not affine in theta's w",
        ),
        ({"init_feedback": lambda key, init: {"v": init(key, (3, 3))}}, "init_feedback has 'v'"),
        ({"init_feedback": lambda key, init: init(key, (3, 3))}, "one array for theta's .'w', 'b'"),
        (
            {"init_feedback": lambda key, init: {"w": init(key, (3, 2))}},
            r"gives e\[w\] of shape \(3, 2\), .* orientation of W",
        ),
    ],
)
def test_check_layer_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        layers.check_layer(PLAIN._replace(**changes))


def theta_of(layer):
    return layer.init(KEY, lrajax.initializers.GLOROT)


@pytest.mark.parametrize(("dtype", "mean"), [("float32", 3e3), ("bfloat16", 10)])
@pytest.mark.parametrize("norm", [layers.layer_norm, lambda layer: layers.group_norm(layer, 1)])
def test_norms_of_numbers_far_from_zero(norm, dtype, mean):
    layer = norm(layers.dense(64, 64, "identity"))
    plain = layers.dense(64, 64)
    theta = {**theta_of(layer), **plain.init(KEY, lambda key, shape: jnp.eye(*shape))}
    theta = jax.tree.map(lambda a: a.astype(dtype), theta)
    z = jnp.asarray(mean + np.random.default_rng(0).normal(size=64), dtype)
    exact = np.asarray(z, float)
    exact = (exact - exact.mean()) / exact.std()
    found = np.asarray(layer.post(layer.pre(theta, z)), float)
    np.testing.assert_allclose(found, exact, atol=0.02 if dtype == "bfloat16" else 1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.pooled(PLAIN, 2), "pooled needs one of images"),
        (lambda: layers.pooled(layers.conv((2, 2, 1), 1, 1), 2, "mean"), "kind='mean'"),
        (lambda: layers.pooled(layers.conv((2, 2, 1), 1, 1), 0), "size=0"),
        (lambda: layers.pooled(layers.conv((2, 2, 1), 1, 1), 2, in_shape=(6, 4, 1)), "in_shape="),
        (lambda: layers.globally_pooled(PLAIN, (2, 2, 4)), "in_shape="),
        (lambda: layers.group_norm(PLAIN, 2), "groups=2 must divide the layer's 3 features"),
        (lambda: layers.batch_norm(PLAIN, momentum=2), "momentum=2"),
        (lambda: theta_of(layers.group_norm(layers.batch_norm(PLAIN), 1)), "'gain' already"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.group_norm(PLAIN, 3), "groups=3 would standardise one number at a time"),
        (layers.layer_norm(layers.dense(4, 1)), "layer_norm would standardise one number"),
    ],
)
def test_a_number_by_itself_is_not_standardised(layer, message):
    theta = layer.init(KEY, lrajax.initializers.GLOROT)
    with pytest.raises(ValueError, match=message):
        layer.post(layer.pre(theta, jnp.ones(layer.in_shape)))


def test_vgg_pools_after_each_stage():
    shapes = [layer.out_shape for layer in networks.vgg5((32, 32, 3), 10, width=4).layers]
    assert shapes == [(32, 32, 4), (16, 16, 8), (8, 8, 16), (4, 4, 16), (10,)]
    assert networks.vgg5((32, 32, 3), 10, width=4).layers[0].in_shape == (3072,)
    for make, convolutions in ((networks.vgg7, 6), (networks.vgg9, 8)):
        network = make((20, 17), 7, width=2)
        assert len(network.layers) == convolutions + 1
        assert network.layers[-1].out_shape == (7,)
