"""Networks for images, and every rule on a network that has every kind of layer."""

import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import layers, networks, steps, training

KEY = jax.random.key(3)
every_rule = pytest.mark.parametrize("name", lrajax.ALGORITHMS)


@functools.cache
def every_kind():
    """Flat images of 4 × 4 through every kind of layer that draws nothing."""
    first = layers.reshaped(layers.conv((4, 4, 1), 2, 3, pool=2), (16,))
    second = layers.locally_connected((2, 2, 2), 3, 2)
    third = layers.residual(layers.layer_norm(layers.conv((2, 2, 3), 3, 3)))
    fourth = layers.reshaped(layers.dense(12, 4, "kwta:0.5"), (2, 2, 3))
    output = layers.dense(4, 3, "softmax")
    return lrajax.Network((first, second, third, fourth, output), lrajax.losses.categorical)


def parts(batch):
    """A mini-batch of 6 as two of 3, each twice, so that all have one shape."""
    halves = ([0, 1, 2, 0, 1, 2], [3, 4, 5, 3, 4, 5])
    return [jax.tree.map(lambda a, half=half: a[np.array(half)], batch) for half in halves]


@every_rule
def test_every_rule_steps_on_every_kind_of_layer(name):
    network = every_kind()
    rule = lrajax.ALGORITHMS[name](network, **lrajax.RULES[name].plain)
    params, batch = reference.make_params(rule), reference.make_batch(network, 6)
    compute = functools.partial(reference.compute_whole, rule)
    lambda_, updates = compute(params, batch, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_tree_all_finite((lambda_, updates))
    for field in (lambda_.h, lambda_.z, lambda_.targets, lambda_.errors):
        assert [a.shape for a in field] == [(6, *layer.out_shape) for layer in network.layers]
    if name == "equil_prop":  # its states may all be at a border, where nothing moves
        return
    assert all(leaf.any() for leaf in jax.tree.leaves(updates.forward))
    one, other = (compute(params, part, KEY)[1] for part in parts(batch))
    total = jax.tree.map(lambda a, b: (a + b) / 2, one.forward, other.forward)
    chex.assert_trees_all_close(updates.forward, total, rtol=1e-3, atol=1e-4)


def test_backprop_is_the_gradient_through_every_kind_of_layer():
    network = every_kind()
    rule = lrajax.backprop(network)
    params, batch = reference.make_params(rule), reference.make_batch(network, 6)

    def loss(forward):
        """Layer by layer and example by example, without the library's products."""

        def of_example(x, y):
            z = x
            for layer, theta in zip(network.layers, forward, strict=True):
                h = layer.pre(theta, z)
                z = layer.post(h)
            return -(y * jax.nn.log_softmax(h)).sum()

        return jax.vmap(of_example)(batch.x, batch.y).sum()

    updates = jax.jit(lambda: reference.compute(rule, params, batch)[1])()
    grad = jax.jit(jax.grad(loss))(params.forward)
    chex.assert_trees_all_close(updates.forward, grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("image_shape", [(4, 4), (8, 8), (28, 28), (9, 12, 3), (20, 17, 3)])
def test_architectures_take_flat_images_and_fit_together(name, image_shape):
    if min(image_shape[:2]) < networks.FOR_IMAGES.get(name, 1):
        return
    network = networks.NETWORKS[name](image_shape, 7)
    shapes = [layer.out_shape for layer in network.layers[:-1]]
    assert [layer.in_shape for layer in network.layers[1:]] == shapes
    rule = lrajax.lra_e(network)
    batch = reference.make_batch(network, 2)
    assert batch.x.shape == (2, layers.size(image_shape))

    def step(key):
        params = rule.init(key)
        return params, *reference.compute(rule, params, batch)

    params, lambda_, updates = jax.eval_shape(step, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert lambda_.z[-1].shape == (2, 7)


def by_fan_in(rule):
    """Parameters under which activities of wide networks keep their size."""
    rng = np.random.default_rng(0)

    def draw(a):
        return jnp.array(rng.normal(size=a.shape) / np.sqrt(a.size // a.shape[-1]), a.dtype)

    return jax.tree.map(draw, jax.eval_shape(rule.init, KEY))


@pytest.mark.parametrize("network", ["vgg5", "vgg9", "resnet18"])
def test_a_step_at_full_size_lowers_the_loss(network, monkeypatch):
    """And of ResNet-18 an example's answer does not depend on its company."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "experiments")
    from paper import beyond, cells

    every = beyond.cifar10_full(cells.Scale((0,)))
    settings = next(c.settings for c in every if c.name == f"lra_e-{network}")
    rule = settings.make_algorithm((32, 32, 3), 10, {})
    optimizer = settings.make_optimizer({}, 900, rule.network)
    params, batch = by_fan_in(rule), reference.make_batch(rule.network, 2)
    rule = rule._replace(init=lambda key: params)
    state = training.init_state(rule, optimizer, KEY)
    step = jax.jit(training.make_train_step(rule, optimizer))
    state, before = step(state, batch)
    state, after = step(state, batch)
    assert after.loss < before.loss
    if network != "resnet18":
        return
    assert all(leaf.any() for leaf in jax.tree.leaves(state.layer_states))
    predict, kept = jax.jit(rule.predict), training.to_predict(state)
    alone = predict(kept, jnp.repeat(batch.x[:1], 2, axis=0))[0]
    np.testing.assert_allclose(alone, predict(kept, batch.x)[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["vgg5", "vgg7", "vgg9", "resnet_small", "resnet18"])
def test_kernels_are_of_3_by_3_and_projections_of_1_by_1(name):
    network = networks.NETWORKS[name]((32, 32, 3), 10)
    params = jax.eval_shape(lrajax.backprop(network).init, KEY).forward
    paths = jax.tree_util.tree_leaves_with_path(params)
    kernels = {jax.tree_util.keystr(path): leaf.shape for path, leaf in paths if leaf.ndim == 4}
    assert kernels
    for path, shape in kernels.items():
        assert shape[:2] == ((1, 1) if "projection" in path else (3, 3)), path


def test_resnet18_halves_sides_where_features_double():
    network = networks.resnet18((32, 32, 3), 10, width=2)
    shapes = [layer.out_shape for layer in network.layers]
    stages = [(32, 32, 2), (16, 16, 4), (8, 8, 8), (4, 4, 16)]
    assert shapes == [(32, 32, 2), *(shape for shape in stages for _ in range(2)), (10,)]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("vgg5", [(1,), (2,), (4,), (4,)]),
        ("vgg7", [(1, 1), (2, 2), (4, 4)]),
        ("vgg9", [(1, 1), (2, 2), (4, 4), (4, 4)]),
    ],
)
def test_vggs_have_the_features_of_their_description(name, stages):
    network = networks.NETWORKS[name]((32, 32, 3), 10, width=2)
    # Sides are halved by the layer above a stage.
    expected = [
        (32 >> stage, 32 >> stage, 2 * multiple)
        for stage, multiples in enumerate(stages)
        for multiple in multiples
    ]
    assert [layer.out_shape for layer in network.layers] == [*expected, (10,)]


def test_lenets_kernels_are_of_5_by_5():
    params = jax.eval_shape(lrajax.backprop(networks.lenet((28, 28), 10)).init, KEY).forward
    assert [theta["w"].shape for theta in params[:2]] == [(5, 5, 1, 6), (5, 5, 6, 16)]


def test_lenet_is_the_one_of_1998_in_plan_and_can_be_wider():
    for sizes, maps in (({}, (6, 16)), ({"width": 9}, (9, 24))):
        network = networks.lenet((28, 28), 10, **sizes)
        assert [layer.out_shape for layer in network.layers] == [
            (14, 14, maps[0]),
            (7, 7, maps[1]),
            (120,),
            (84,),
            (10,),
        ]


def test_sizes_and_activations_are_passed_on():
    (first, *_), (second, *_) = (
        make((8, 8), 10, width=5, activation="relu").layers
        for make in (networks.resnet_small, networks.image_mlp)
    )
    assert (first.out_shape, second.out_shape) == ((4, 4, 5), (5,))
    assert second.post(-jnp.ones(())) == 0
    assert len(networks.resmlp((8, 8), 10, hidden_layers=6).layers) == 7


@pytest.mark.parametrize("output", ["bernoulli", "gaussian"])
def test_autoencoder_learns_to_reconstruct(output):
    network = lrajax.autoencoder((6, 8, 2), output)
    assert [layer.out_shape for layer in network.layers] == [(8,), (2,), (8,), (6,)]
    rule = lrajax.lra_e(network, reduction="mean", w_init=lrajax.initializers.GLOROT)
    params = reference.make_params(rule)
    x = jnp.array(np.repeat(np.eye(3), 2, axis=1), float)
    batch = lrajax.Batch(x, x)

    def step(params, _):
        lambda_ = rule.compute_targets(params, batch)
        updates = rule.calc_updates(params, lambda_)
        params = jax.tree.map(lambda p, u: p - 0.3 * u, params, updates)
        return params, (rule.loss(batch.y, lambda_.z[-1]).mean(), lambda_.errors[-1])

    _, (loss, errors) = jax.jit(lambda: jax.lax.scan(step, params, length=400))()
    assert loss[-1] < 0.25 * loss[0]
    # the error unit is the loss's derivative in the pre-activity
    (h, z) = jax.jit(lambda: steps.forward(network, params.forward, x))()
    grad = jax.grad(lambda h: network.output_loss.value(x, network.layers[-1].post(h)).sum())
    chex.assert_trees_all_close(errors[0], grad(h[-1]), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(errors[0], z[-1] - x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((6,),), "sizes="),
        (((6, 2), "categorical"), "output='categorical'"),
        (((6, 2), "gaussian", "softmax"), "activation='softmax'"),
        (((6, 0),), "sizes=0"),
    ],
)
def test_bad_autoencoders_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        lrajax.autoencoder(*arguments)


def test_training_takes_a_network_of_images():
    """An epoch, two seeds at once."""
    network = networks.lenet((4, 4), 3)
    rule, optimizer = lrajax.lra_e(network), optax.sgd(0.01)
    rng = np.random.default_rng(0)
    examples = lrajax.data.Examples(
        rng.integers(0, 16, (20, 16), np.uint8), np.arange(20, dtype=np.int32) % 3
    )
    step = training.make_train_step(rule, optimizer)
    epoch = training.make_epoch(rule, step, 5, 3, 16.0)

    def run(key):
        return epoch(training.init_run(rule, optimizer, key), *[examples] * 3)

    metrics = jax.eval_shape(jax.vmap(run), jax.random.split(KEY, 2))[1]
    assert metrics.test.error.shape == (2,)


def test_mlp_bfloat16_is_mlp_with_coarser_products():
    coarse, plain = (
        lrajax.backprop(networks.NETWORKS[name]((4, 4), 7)) for name in ("mlp_bfloat16", "mlp")
    )
    params, batch = plain.init(KEY), reference.make_batch(networks.image_mlp((4, 4), 7), 3)
    got, expected = coarse.predict(params, batch.x), plain.predict(params, batch.x)
    assert not np.array_equal(got, expected)
    np.testing.assert_allclose(got, expected, atol=0.05)


def test_mlp_binary_with_a_hard_tanh_is_the_straight_through_mlp():
    binary = networks.mlp_binary((4, 4), 7, activation="hard_tanh")
    straight = networks.image_mlp((4, 4), 7, activation="sign_ste")
    rules = [lrajax.backprop(network) for network in (binary, straight)]
    params, batch = reference.make_params(rules[0]), reference.make_batch(straight, 3)
    updates = [rule.calc_updates(params, rule.compute_targets(params, batch)) for rule in rules]
    chex.assert_trees_all_close(*updates, rtol=1e-6)
    np.testing.assert_allclose(*[rule.predict(params, batch.x) for rule in rules], rtol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_mlp_binary_refuses_units_that_would_all_send_1(activation):
    with pytest.raises(ValueError, match=f"activation='{activation}' is always positive"):
        networks.mlp_binary((4, 4), 7, activation=activation)


def test_without_derivatives_every_binary_unit_that_is_not_saturated_has_an_error():
    """Between signs alone, only those few have one that their target flips."""
    sizes = {"hidden_layers": 3, "width": 64}
    binary = networks.mlp_binary((4, 4), 7, activation="hard_tanh", **sizes)
    signs = networks.image_mlp((4, 4), 7, activation="sign", **sizes)
    rules = [lrajax.lra_e(network, derivative=False) for network in (binary, signs)]
    params, batch = reference.make_params(rules[0]), reference.make_batch(binary, 3)
    graded, flips = (reference.compute_whole(rule, params, batch)[0] for rule in rules)
    for h, error, flipped in zip(graded.h[:-1], graded.errors[:-1], flips.errors[:-1], strict=True):
        assert (error[np.abs(h) < 1] != 0).all()
        assert (flipped != 0).mean() < (error != 0).mean()
