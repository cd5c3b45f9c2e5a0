"""Every rule through the same contract."""

import contextlib
import functools
import inspect
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import algorithms, layers, training

SIZES = (5, 4, 6, 3, 2)  # those of conftest.py
PLAIN = {name: dict(rule.plain) for name, rule in lrajax.RULES.items()}
TRACED = [name for name, rule in lrajax.RULES.items() if rule.traced]
every_rule = pytest.mark.parametrize("name", lrajax.ALGORITHMS)
KEY = jax.random.key(3)


def factory(name):
    return lrajax.ALGORITHMS[name.split(",")[0]]


@functools.cache
def case(name):
    """A rule with default hyperparameters, its parameters, a batch, and what it makes of them."""
    network = lrajax.mlp(SIZES)
    rule = factory(name)(network)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    return rule, params, batch, *reference.compute_named(name, rule, params, batch, KEY)


def close(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_names_are_those_of_the_factories():
    compared = ["backprop", "rfa", "dfa", "equil_prop", "dtp", "dtp_sigma", "lra_e"]
    assert list(lrajax.ALGORITHMS)[:7] == compared
    assert all(getattr(lrajax, name) is rule for name, rule in lrajax.ALGORITHMS.items())
    assert {n: r.factory for n, r in lrajax.RULES.items()} == lrajax.ALGORITHMS
    assert sorted(algorithms.__all__) == sorted({"ALGORITHMS", "RULES", "Rule", *lrajax.RULES})
    assert set(algorithms.__all__) < set(lrajax.__all__)


@every_rule
def test_signatures(name):
    def parameters(function):
        return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]

    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    network_argument, *hyperparameters = parameters(factory(name))
    assert network_argument == ("network", positional)
    assert {kind for _, kind in hyperparameters} == {keyword}
    rule = case(name)[0]
    assert isinstance(rule, lrajax.Algorithm)
    assert parameters(rule.init) == [("key", positional)]
    assert parameters(rule.compute_targets) == [
        ("params", positional),
        ("batch", positional),
        ("key", keyword),
    ]
    assert parameters(rule.calc_updates) == [("params", positional), ("lambda_", positional)]
    assert parameters(rule.predict) == [("params", positional), ("x", positional)]


@every_rule
@pytest.mark.parametrize("sizes", [(5, 4, 2), (5, 4, 3, 2), (5, 3, 6, 4, 2), (5, 3, 6, 4, 7, 2)])
def test_trees_shapes_and_types(name, sizes):
    network = lrajax.mlp(sizes)
    rule = factory(name)(network)
    params = jax.eval_shape(rule.init, KEY)
    batch = reference.make_batch(network, 6)
    lambda_, updates = jax.eval_shape(
        lambda params: reference.compute(rule, params, batch, KEY), params
    )
    assert isinstance(params, lrajax.Params)
    assert isinstance(lambda_, lrajax.Calculations)
    chex.assert_trees_all_equal_structs(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    expected = [{"w": pair, "b": pair[1:]} for pair in itertools.pairwise(sizes)]
    assert [{name: a.shape for name, a in theta.items()} for theta in params.forward] == expected
    assert len(params.feedback) == len(params.forward)
    assert params.feedback[0] == ()
    for field in (lambda_.h, lambda_.z, lambda_.targets, lambda_.errors):
        assert [(a.shape, a.dtype) for a in field] == [((6, n), jnp.float32) for n in sizes[1:]]
    assert lambda_.x.shape == (6, 5)


@every_rule
@pytest.mark.parametrize("activation", reference.PHI)
def test_updates_are_finite_and_of_every_forward_parameter(name, activation):
    network = lrajax.mlp(SIZES, activation)
    rule = factory(name)(network)
    # Positive, so that no relu is silent for a whole mini-batch, and small, so that no state of
    # equilibrium propagation saturates.
    params = jax.tree.map(lambda a: abs(a) / 4, reference.make_params(rule))
    _, updates = reference.compute_named(name, rule, params, reference.make_batch(network, 7), KEY)
    assert training.all_finite(updates)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(updates.forward))


@every_rule
def test_feedback_that_does_not_decay_is_that_which_no_update_moves(name):
    updates = case(name)[-1]
    moves = [leaf.any() for leaf in jax.tree.leaves(updates.feedback)]
    assert lrajax.RULES[name].fixed_feedback == (bool(moves) and not any(moves))


@every_rule
def test_layers_without_parameters_and_layers_that_do_not_fit(name):
    dense = lrajax.mlp((8, 8, 4, 2)).layers
    pooled = lrajax.Layer(
        in_shape=(8,),
        out_shape=(4,),
        init=lambda key, initializer: {},
        init_feedback=lambda key, initializer: {},
        pre=lambda theta, z: z.reshape(4, 2).mean(axis=1),
        post=lambda h: h,
        feedback=lambda e, z_below, error: jnp.repeat(error, 2) / 2,
    )
    network = lrajax.Network((dense[0], pooled, dense[2]), lrajax.losses.categorical)
    rule = factory(name)(network)
    params, batch = jax.eval_shape(rule.init, KEY), reference.make_batch(network, 6)
    function = functools.partial(reference.compute, rule)
    _, updates = jax.eval_shape(function, params, batch, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    askew = factory(name)(network._replace(layers=(dense[0], dense[2])))
    with pytest.raises(ValueError, match=r"layer 1 takes \(4,\), the layer below gives \(8,\)"):
        jax.eval_shape(
            lambda params: reference.compute(askew, params, batch, KEY),
            jax.eval_shape(askew.init, KEY),
        )


@every_rule
def test_jit_equals_eager(name):
    rule, params, batch, _, _ = case(name)
    function = functools.partial(reference.compute, rule)
    close(jax.jit(function)(params, batch, KEY), function(params, batch, KEY))


@every_rule
def test_prediction_is_the_output_activity(name):
    rule, params, batch, lambda_, _ = case(name)
    prediction = rule.predict(params, batch.x)
    close(prediction, lambda_.z[-1])
    assert ((prediction >= 0) & (prediction <= 1)).all()
    assert rule.loss(batch.y, prediction).shape == (7,)
    if name != "equil_prop":
        close(prediction.sum(axis=1), jnp.ones(7))
        close(lambda_.targets[-1], batch.y)
        close(lambda_.errors[-1], prediction - batch.y)


@every_rule
def test_one_trace_however_often_it_is_called(name):
    rule, params, batch, _, _ = case(name)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, batch, key):
        lambda_ = rule.compute_targets(params, batch, key=key)
        updates = rule.calc_updates(params, lambda_)
        # the result is fed back, so a drift of types or of weak types would show
        return jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)

    for seed in range(3):
        params = step(params, batch._replace(x=batch.x / (seed + 1)), jax.random.key(seed))


@every_rule
def test_vmap_over_seeds_equals_a_loop(name):
    rule, _, batch, _, _ = case(name)
    keys = jax.random.split(KEY, 2)
    alone = [reference.make_params(rule, seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *a: jnp.array(np.stack(a)), *alone)
    in_axes = (None, 0, None, 0)
    together = jax.jit(jax.vmap(reference.compute, in_axes), static_argnums=0)(
        rule, stacked, batch, keys
    )
    for i, (params, key) in enumerate(zip(alone, keys, strict=True)):
        expected = reference.compute_named(name, rule, params, batch, key)
        close(jax.tree.map(lambda a, i=i: a[i], together), expected)
    # Initial parameters are traced only: compiling their draws takes seconds.
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(jax.vmap(rule.init), keys), stacked
    )


@pytest.mark.parametrize("name", TRACED)
def test_vmap_over_hyperparameters_equals_a_loop(name):
    """Of the default values, and of one value changed at a time."""
    _, params, batch, _, _ = case(name)
    rule = lrajax.RULES[name]
    defaults = {traced: rule.hyperparameters[traced].default for traced in rule.traced}
    changes = [{traced: 0.2 + value / 4} for traced, value in defaults.items()]
    rows = [defaults | change for change in ({}, *changes)]

    def of_values(values):
        return reference.compute(factory(name)(lrajax.mlp(SIZES), **values), params, batch, KEY)

    columns = {name: jnp.array([row[name] for row in rows]) for name in defaults}
    together = jax.jit(jax.vmap(of_values))(columns)
    alone = jax.jit(of_values) if name in reference.RELAXING else of_values
    updates = []
    for i, row in enumerate(rows):
        expected = alone(row)
        close(jax.tree.map(lambda a, i=i: a[i], together), expected)
        updates.append(expected[1])
    for changed in updates[1:]:
        gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), changed, updates[0])
        assert max(jax.tree.leaves(gaps)) > 1e-3


def draws(rule, params, batch):
    """Whether a rule asks for a key."""
    with contextlib.suppress(ValueError):
        jax.eval_shape(rule.compute_targets, params, batch)
        return False
    with pytest.raises(ValueError, match="key=None"):
        jax.eval_shape(rule.compute_targets, params, batch)
    return True


def test_which_rules_draw():
    found = {name for name in lrajax.RULES if draws(case(name)[0], *case(name)[1:3])}
    assert found >= {"dtp", "dtp_sigma", "equil_prop"}
    assert not found & {"backprop", "rfa", "dfa", "lra_e", "predictive_coding"}


@every_rule
def test_a_rule_that_draws_makes_something_else_of_another_key(name):
    rule, params, batch, _, updates = case(name)
    if not draws(rule, params, batch):
        return
    of_key = jax.jit(lambda key: reference.compute(rule, params, batch, key)[1])
    close(of_key(KEY), updates)
    others = [of_key(jax.random.key(seed)) for seed in range(8)]
    assert any(np.any(o.forward[0]["w"] != updates.forward[0]["w"]) for o in others) or any(
        np.any(o.feedback[1]["w"] != updates.feedback[1]["w"]) for o in others
    )


@pytest.mark.parametrize(
    ("name", "kwargs"), [*PLAIN.items(), ("equil_prop", {"nudge": "positive"})]
)
def test_a_rule_that_draws_nothing_ignores_the_key(name, kwargs):
    _, params, batch, _, _ = case(name)
    rule = factory(name)(lrajax.mlp(SIZES), **kwargs)
    if draws(rule, params, batch):
        return
    without = reference.compute_named(name, rule, params, batch, None)
    chex.assert_trees_all_equal(without, reference.compute_named(name, rule, params, batch, KEY))


@every_rule
def test_mean_is_the_sum_over_the_batch_size(name):
    _, params, batch, _, _ = case(name)
    rules = (
        factory(name)(lrajax.mlp(SIZES), reduction=reduction, **PLAIN[name])
        for reduction in ("mean", "sum")
    )
    mean, summed = (reference.compute_named(name, rule, params, batch, KEY)[1] for rule in rules)
    close(mean, jax.tree.map(lambda a: a / 7, summed))


@pytest.mark.parametrize(
    ("name", "kwargs"), [*PLAIN.items(), ("equil_prop", {"nudge": "positive"})]
)
def test_a_batch_is_the_sum_of_its_parts(name, kwargs):
    _, params, first, _, _ = case(name)
    rule = factory(name)(lrajax.mlp(SIZES), **kwargs)
    second = first._replace(x=1 - first.x, y=first.y[:, ::-1])
    # Each part twice, so that all mini-batches have one shape.
    one, other, whole = (
        reference.compute_whole(
            rule, params, jax.tree.map(lambda *of: np.concatenate(of), *parts), KEY
        )[1]
        for parts in ((first, first), (second, second), (first, second))
    )
    total = jax.tree.map(lambda a, b: (np.asarray(a) + b) / 2, one, other)
    close(whole.forward, total.forward)
    if name != "dtp_sigma":  # σ, and so the decoders' update, depends on the whole batch
        close(whole.feedback, total.feedback)


@every_rule
def test_wrong_shapes_are_refused(name):
    rule, params, batch, _, _ = case(name)
    x, y = batch
    for bad in (x[:, :-1], x[0]):
        with pytest.raises(ValueError, match=r"^x has shape"):
            jax.eval_shape(
                lambda b: rule.compute_targets(params, b, key=KEY), batch._replace(x=bad)
            )
        with pytest.raises(ValueError, match=r"^x has shape"):
            jax.eval_shape(lambda x: rule.predict(params, x), bad)
    for bad in (y[:, :1], y[:1], y[0], jnp.pad(y, ((0, 0), (0, 1))), y.argmax(axis=1)):
        with pytest.raises(ValueError, match=r"^y has shape"):
            jax.eval_shape(
                lambda b: rule.compute_targets(params, b, key=KEY), batch._replace(y=bad)
            )


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [(name, {"reduction": "avg"}, "reduction='avg'") for name in lrajax.ALGORITHMS]
    + [
        ("equil_prop", {"beta": 0.0}, "beta=0.0"),
        ("equil_prop", {"nudge": "centered"}, "nudge='centered'.*'centred'"),
        ("equil_prop", {"free_steps": 0}, "free_steps=0"),
        ("equil_prop", {"nudged_steps": 0}, "nudged_steps=0"),
        ("equil_prop", {"step_size": 0.0}, "step_size=0.0"),
        ("equil_prop", {"step_size": 1.5}, "step_size=1.5"),
        ("equil_prop", {"rates": (1.0, 1.0)}, "rates="),
        ("dtp", {"noise": -0.1}, "noise=-0.1"),
        ("dtp", {"noise": np.nan}, "noise=nan"),
        ("dtp", {"target_rate": 0.0}, "target_rate=0.0"),
        ("dtp_sigma", {"alpha": 0.0}, "alpha=0.0"),
        ("dtp_sigma", {"target_rate": -1.0}, "target_rate=-1.0"),
        ("lra_e", {"beta": -0.1}, "beta=-0.1"),
        ("lra_e", {"beta": np.inf}, "beta=inf"),
        ("lra_e", {"gamma": -1.0}, "gamma=-1.0"),
        ("lra_e", {"local_loss": "gauss"}, "local_loss='gauss'.*'gaussian'"),
        ("rec_lra", {"stride": 0}, "stride=0"),
        ("rec_lra", {"beta": -0.1}, "beta=-0.1"),
        ("rec_lra", {"gamma": -1.0}, "gamma=-1.0"),
        ("rec_lra", {"local_loss": "gauss"}, "local_loss='gauss'.*'gaussian'"),
        ("kolen_pollack", {"decay": -1e-3}, "decay=-0.001"),
        ("predictive_coding", {"steps": 0}, "steps=0"),
        ("predictive_coding", {"step_size": 0.0}, "step_size=0.0"),
        ("predictive_coding", {"step_size": 1.5}, "step_size=1.5"),
    ],
)
def test_bad_hyperparameters_are_named(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        factory(name)(lrajax.mlp(SIZES), **kwargs)


@every_rule
def test_learns_a_small_problem(name):
    """Three noisy clusters."""
    rng = np.random.default_rng(0)
    # A hard-sigmoid unit at 0 or 1 gets no update: two hidden layers as narrow as this can stick.
    network = lrajax.mlp((5, 16, 3) if name == "equil_prop" else (5, 16, 16, 3))
    labels = np.arange(60) % 3
    centres = np.eye(3, 5)
    x = jnp.array(0.1 + 0.6 * centres[labels] + 0.2 * rng.uniform(size=(60, 5)), float)
    batch = lrajax.Batch(x, jnp.array(np.eye(3)[labels], float))
    rule = factory(name)(network, reduction="mean")
    params = reference.make_params(rule)
    optimizer = optax.adam(0.01)
    step = training.make_train_step(rule, optimizer)
    state = training.TrainState(params, optimizer.init(params), KEY, jnp.array(0))
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, batch), state, length=150))
    _, metrics = run(state)
    assert metrics.loss[-1] < 0.6 * metrics.loss[0]
    assert metrics.error[-1] < 5 < metrics.error[0]


def test_a_small_step_of_backprop_lowers_the_loss_by_what_the_gradient_says():
    rule, params, batch, lambda_, updates = case("backprop")
    stepped = jax.tree.map(lambda p, u: p - 1e-3 * u, params, updates)
    before = rule.loss(batch.y, lambda_.z[-1]).sum()
    after = rule.loss(batch.y, rule.predict(stepped, batch.x)).sum()
    promised = 1e-3 * sum(jax.tree.leaves(jax.tree.map(lambda u: (u**2).sum(), updates)))
    np.testing.assert_allclose(before - after, promised, rtol=0.05)


def tensor_layer(in_shape, out_shape, post):
    """A dense layer whose activities are tensors, and whose parameters have names of their own."""
    return lrajax.Layer(
        in_shape=in_shape,
        out_shape=out_shape,
        init=lambda key, initializer: {
            "offset": jnp.zeros(out_shape),
            "kernel": initializer(key, (*in_shape, *out_shape)),
        },
        init_feedback=lambda key, initializer: {
            "kernel": initializer(key, (*in_shape, *out_shape))
        },
        pre=lambda theta, z: jnp.tensordot(z, theta["kernel"], len(in_shape)) + theta["offset"],
        post=post,
        feedback=lambda e, z_below, error: jnp.tensordot(e["kernel"], error, len(out_shape)),
    )


@every_rule
def test_a_new_kind_of_layer_needs_no_change_to_a_rule(name):
    shapes = ((5,), (2, 2), (2, 3), (3,), (2,))  # flattened, SIZES
    posts = [jnp.tanh] * 3 + [jax.nn.softmax]
    tensors = lrajax.Network(
        tuple(map(tensor_layer, shapes[:-1], shapes[1:], posts)), lrajax.losses.categorical
    )
    assert tuple(map(layers.size, shapes)) == SIZES
    _, params, batch, _, expected = case(name)
    rule = factory(name)(tensors)

    initializer = lrajax.initializers.gaussian(0.1)
    init = factory(name)(tensors, w_init=initializer, **has_e_init(name, initializer)).init
    templates = jax.eval_shape(init, KEY)
    named = jax.tree.map(
        lambda template, a: a.reshape(template.shape), templates, renamed(templates, params)
    )
    tensor_batch = batch._replace(x=batch.x.reshape(7, *shapes[0]))
    _, updates = reference.compute_whole(rule, named, tensor_batch, KEY)
    flattened = jax.tree.map(
        lambda template, u: u.reshape(template.shape), renamed(updates, params), updates
    )
    close(flattened, renamed(updates, expected))


def has_e_init(name, initializer):
    feedback = "e_init" in inspect.signature(factory(name)).parameters
    return {"e_init": initializer} if feedback else {}


def renamed(template, params):
    """Params under the template's names: kernel for w, offset for b."""
    names = {"kernel": "w", "offset": "b"}

    def entry(like, values):
        return {name: values[names.get(name, name)] for name in like} if like else ()

    return lrajax.Params(*(tuple(map(entry, *pair)) for pair in zip(template, params, strict=True)))
