import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax

RATE = 0.3
RULES = {
    "dtp": lambda network, **kwargs: lrajax.dtp(network, noise=0.4, target_rate=RATE, **kwargs),
    "dtp_sigma": lambda network, **kwargs: lrajax.dtp_sigma(
        network, alpha=0.5, target_rate=RATE, **kwargs
    ),
}
WIDTHS = (5, 4, 6, 3, 2)


def made(name, activation):
    network = lrajax.mlp(WIDTHS, activation)
    rule = RULES[name](network)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    return params, batch, *reference.compute(rule, params, batch, jax.random.key(5))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_equals_numpy(name, activation):
    params, batch, lambda_, updates = made(name, activation)

    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    e_matrix = {l: e.T for l, e in reference.paper(params.feedback).items()}
    c = reference.paper(params.feedback, "b")
    phi, slope = reference.PHI[activation]
    x, y_out = reference.columns(batch)
    h, z = reference.forward(w, b, x, activation)

    def g(l, code):
        return phi(e_matrix[l] @ code + c[l])

    # Lee et al.'s topmost hidden target, and (9) with its sign set right
    y = {4: y_out, 3: z[3] - RATE * w[4].T @ (z[4] - y_out)}
    for l in (3, 2):
        y[l - 1] = z[l - 1] - g(l, z[l]) + g(l, y[l])
    error = {l: -2 * (y[l] - z[l]) for l in (1, 2, 3)} | {4: z[4] - y_out}
    delta = {l: error[l] * slope(h[l]) for l in (1, 2, 3)} | {4: error[4]}
    reference.assert_columns(lambda_.targets, y)
    reference.assert_columns(lambda_.errors, error)
    reference.assert_updates(
        updates.forward,
        {l: delta[l] @ z[l - 1].T for l in w},
        {l: delta[l].sum(axis=1) for l in w},
    )

    de, dc = {}, {}
    for l, cycle in zip((2, 3), lambda_.aux, strict=True):
        noise = np.asarray(cycle.corrupted - lambda_.z[l - 2], np.float64).T
        corrupted = z[l - 1] + noise  # (10)
        code = phi(w[l] @ corrupted + b[l])
        u = e_matrix[l] @ code + c[l]
        down = -2 * (corrupted - phi(u)) * slope(u)
        de[l], dc[l] = (down @ code.T).T, down.sum(axis=1)
        assert noise.std() > 0.05
    reference.assert_updates(updates.feedback, de, dc)


@pytest.mark.parametrize("name", RULES)
def test_updates_are_gradients_of_the_local_losses(name):
    """Of Σ(y - z)² with targets and activity below fixed; of Σ(ŷ - ẑ)² with the encoder fixed."""
    params, batch, lambda_, updates = made(name, "tanh")
    below = (batch.x, *lambda_.z[:-1])

    def local(theta, l):
        z = jnp.tanh(below[l] @ theta["w"] + theta["b"][None, :])
        return ((lambda_.targets[l] - z) ** 2).sum()

    def reconstruction(e, l):
        theta, corrupted = params.forward[l], lambda_.aux[l - 1].corrupted
        code = jnp.tanh(corrupted @ theta["w"] + theta["b"][None, :])
        return ((corrupted - jnp.tanh(code @ e["w"].T + e["b"][None, :])) ** 2).sum()

    def losses(hidden, decoders):
        reconstructions = sum(map(reconstruction, decoders, (1, 2)))
        return sum(map(local, hidden, (0, 1, 2))) + reconstructions

    hidden, decoders = jax.grad(losses, (0, 1))(params.forward[:3], params.feedback[1:3])
    chex.assert_trees_all_close(updates.forward[:3], hidden, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(updates.feedback[1:3], decoders, rtol=1e-4, atol=1e-5)


def test_a_decoder_gives_through_the_activation_of_the_layer_below(key):
    own = {"tanh": jnp.tanh, "softplus": jax.nn.softplus, "sigmoid": jax.nn.sigmoid}
    sizes = zip(WIDTHS[:-1], WIDTHS[1:], (*own, "softmax"), strict=True)
    network = lrajax.Network(
        tuple(lrajax.dense(*each) for each in sizes), lrajax.losses.categorical
    )
    rule = lrajax.dtp(network)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    lambda_, updates = reference.compute(rule, params, batch, key)
    below, above, _ = own.values()

    def reconstruction(e):
        """Of the lowest layer's activity, and its decoder."""
        theta, corrupted = params.forward[1], lambda_.aux[0].corrupted
        code = above(corrupted @ theta["w"] + theta["b"][None, :])
        return ((corrupted - below(code @ e["w"].T + e["b"][None, :])) ** 2).sum()

    expected = jax.grad(reconstruction)(params.feedback[1])
    chex.assert_trees_all_close(updates.feedback[1], expected, rtol=1e-4, atol=1e-5)


def test_no_decoder_for_the_input_and_the_output(key):
    params = jax.eval_shape(lrajax.dtp(lrajax.mlp(WIDTHS)).init, key)
    assert params.feedback[0] == params.feedback[3] == ()
    assert [e["w"].shape for e in params.feedback[1:3]] == [(4, 6), (6, 3)]
    assert [e["b"].shape for e in params.feedback[1:3]] == [(4,), (6,)]


def noise_of(rule, params, batch, key):
    lambda_ = jax.jit(rule.compute_targets)(params, batch, key=key)
    return [c.corrupted - z for c, z in zip(lambda_.aux, lambda_.z[:-2], strict=True)]


def test_noise_is_normal_with_deviation_sigma_and_independent_between_layers(key):
    network = lrajax.mlp((5, 60, 60, 60, 2))
    rule = lrajax.dtp(network, noise=0.4)
    params, batch = reference.make_params(rule), reference.make_batch(network, 50)
    first, second = map(np.array, noise_of(rule, params, batch, key))
    for noise in (first, second):
        assert abs(noise.mean()) < 0.03
        np.testing.assert_allclose(noise.std(), 0.4, rtol=0.05)
        np.testing.assert_allclose((noise**4).mean() / noise.var() ** 2, 3, rtol=0.15)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.06
    assert abs(np.corrcoef(first[0], first[1])[0, 1]) < 0.5


READINGS = list(itertools.product(("target", "corrupted"), ("sum", "mean")))


@pytest.mark.parametrize(("sigma_loss", "over_units"), READINGS)
def test_sigma_falls_by_the_loss_of_the_layer_above(sigma_loss, over_units, key):
    """Equation 11; where σ turns negative its sign is kept."""
    network = lrajax.mlp((5, 4, 6, 3, 5, 2))
    params = reference.make_params(lrajax.dtp(network))
    batch = reference.make_batch(network, 7)
    unit = jax.tree.map(np.array, noise_of(lrajax.dtp(network, noise=1.0), params, batch, key))

    signs = set()
    for alpha in (0.05, 0.2, 4.0):
        rule = lrajax.dtp_sigma(network, alpha=alpha, sigma_loss=sigma_loss, over_units=over_units)
        lambda_ = rule.compute_targets(params, batch, key=key)
        sigma = alpha
        for l in (2, 1, 0):
            corrupted, z = np.asarray(lambda_.aux[l].corrupted), np.asarray(lambda_.z[l])
            # The same key draws the same numbers, so σ is the one factor between the two rules.
            np.testing.assert_allclose(corrupted - z, sigma * unit[l], rtol=1e-3, atol=1e-5)
            signs.add(np.sign(sigma))
            compared = np.asarray(lambda_.targets[l]) if sigma_loss == "target" else corrupted
            squares = (compared - z) ** 2
            sigma -= squares.mean() if over_units == "mean" else squares.sum() / len(squares)
    assert sigma_loss == "target" or signs == {-1, 1}


def test_sigma_adapts_by_default(key):
    """The lowest σ moves by more than a factor of 2 in training, where the old reading's stays."""
    network = lrajax.mlp((5, 64, 64, 64, 64, 64, 64, 3))
    rule, batch = lrajax.dtp_sigma(network), reference.make_batch(network, 50)

    @jax.jit
    def step(params, key):
        lambda_ = rule.compute_targets(params, batch, key=key)
        updates = rule.calc_updates(params, lambda_)
        lowest = (lambda_.aux[0].corrupted - lambda_.z[0]).std()
        return jax.tree.map(lambda p, u: p - 0.01 * u, params, updates), lowest

    params, lowest = rule.init(key), []
    for i in range(20):
        params, sigma = step(params, jax.random.fold_in(key, i))
        lowest.append(float(sigma))
    assert max(lowest) > 2 * min(lowest)
    # Under the other reading it stays where DTP of that noise has it.
    fixed = lrajax.dtp_sigma(network, sigma_loss="corrupted", over_units="mean")
    *_, top = noise_of(fixed, params, batch, key)
    np.testing.assert_allclose(noise_of(fixed, params, batch, key)[0].std(), top.std(), rtol=0.05)


@pytest.mark.parametrize("name", ["sigma_loss", "over_units"])
def test_an_unknown_reading_is_refused(name, network):
    with pytest.raises(ValueError, match=f"{name}='both' is unknown"):
        lrajax.dtp_sigma(network, **{name: "both"})


def test_without_noise_a_perfect_decoder_gets_no_update(key):
    """Linear, square and orthogonal layers, whose inverse is the transpose."""
    network = lrajax.mlp((4, 4, 4, 4, 3), "identity")
    rule = lrajax.dtp(network, noise=0.0)
    params = reference.make_params(rule)
    rotations = [np.linalg.qr(theta["w"])[0] for theta in params.forward[1:3]]
    forward, feedback = list(params.forward), list(params.feedback)
    for l, w in enumerate(rotations, 1):
        # w is square: decoding h = z w + b by wᵀ leaves w b, which the decoder's bias takes off
        feedback[l] = {"w": w, "b": -w @ np.asarray(forward[l]["b"])}
        forward[l] = {"w": w, "b": forward[l]["b"]}
    params = lrajax.Params(tuple(forward), tuple(feedback))
    batch = reference.make_batch(network, 7)
    _, updates = reference.compute(rule, params, batch, key)
    for leaf in jax.tree.leaves(updates.feedback):
        np.testing.assert_allclose(leaf, 0, atol=1e-5)


def test_one_hidden_layer_has_no_decoders_at_all(key):
    network = lrajax.mlp((5, 4, 2))
    rule = lrajax.dtp(network, target_rate=RATE)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    lambda_, _ = reference.compute(rule, params, batch, key)
    assert jax.eval_shape(rule.init, key).feedback == ((), ())
    assert lambda_.aux == ()
    gradient = (lambda_.z[1] - batch.y) @ params.forward[1]["w"].T
    chex.assert_trees_all_close(lambda_.targets[0], lambda_.z[0] - RATE * gradient, rtol=1e-5)


@pytest.mark.parametrize("rule", [lrajax.dtp, lrajax.dtp_sigma])
def test_a_network_without_a_hidden_layer_is_refused(rule, network):
    with pytest.raises(ValueError, match="no hidden layer"):
        rule(network._replace(layers=network.layers[-1:]))
