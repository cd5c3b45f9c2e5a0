import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from sklearn.datasets import load_digits

import lrajax
from lrajax import diagnostics, steps, training
from lrajax.algorithms import _lra_e, _rounding

BETA, GAMMA = 0.7, 0.9


def error_unit(local_loss, y, z):
    if local_loss == "gaussian":
        return -2 * (y - z)  # (3)
    return -2 * (y - z) / (1 + (y - z) ** 2)  # (4)


def numpy_lra_e(params, batch, activation, local_loss, derivative):
    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    e_matrix = {l: e.T for l, e in reference.paper(params.feedback).items()}
    x, y_out = reference.columns(batch)
    phi, slope = reference.PHI[activation]
    h, z = reference.forward(w, b, x, activation)
    top = len(w)
    y, e = {top: y_out}, {top: z[top] - y_out}
    for l in range(top, 1, -1):
        y[l - 1] = phi(h[l - 1] - BETA * (e_matrix[l] @ e[l]))  # (5), (6)
        e[l - 1] = error_unit(local_loss, y[l - 1], z[l - 1])
    # The output's error is one with respect to the pre-activity already.
    delta = {l: e[l] * slope(h[l]) if derivative and l < top else e[l] for l in w}
    dw = {l: delta[l] @ z[l - 1].T for l in w}  # (7) or (8)
    db = {l: delta[l].sum(axis=1) for l in w}
    de = {l: GAMMA * dw[l].T for l in e_matrix}
    return y, e, dw, db, de


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("local_loss", ["gaussian", "cauchy"])
@pytest.mark.parametrize("derivative", [True, False])
def test_equals_numpy(activation, local_loss, derivative):
    network = lrajax.mlp((5, 4, 6, 3, 2), activation)
    batch = reference.make_batch(network, 7)
    rule = lrajax.lra_e(
        network, beta=BETA, gamma=GAMMA, local_loss=local_loss, derivative=derivative
    )
    params = reference.make_params(rule)
    y, e, dw, db, de = numpy_lra_e(params, batch, activation, local_loss, derivative)
    lambda_, updates = reference.compute(rule, params, batch)
    reference.assert_columns(lambda_.targets, y)
    reference.assert_columns(lambda_.errors, e)
    reference.assert_updates(updates.forward, dw, db)
    reference.assert_updates(updates.feedback, {l: d.T for l, d in de.items()})


def test_small_beta_gives_first_order_errors():
    """As β → 0, e^{l-1} → 2β φ′(h^{l-1}) ⊗ (E^l e^l), with a remainder of the order of β²."""
    with jax.enable_x64(True):
        network = lrajax.mlp((5, 4, 6, 3, 2))
        batch = reference.make_batch(network, 7)
        params = reference.make_params(lrajax.lra_e(network))
        w = reference.paper(params.feedback)

        def relative_remainder(beta):
            lambda_, _ = reference.compute_whole(lrajax.lra_e(network, beta=beta), params, batch)
            h, e = (jax.tree.map(np.asarray, (None, *t)) for t in (lambda_.h, lambda_.errors))
            first = {
                l: 2 * beta * (1 - np.tanh(h[l]) ** 2) * (e[l + 1] @ w[l + 1]) for l in w if l < 4
            }
            return np.array([np.abs(e[l] - first[l]).max() / np.abs(first[l]).max() for l in first])

        remainder = relative_remainder(1e-3)
        assert (remainder < 1e-2).all()
        # e^l is itself of the order of β in all but the last hop, so there it falls faster still
        ratios = remainder / relative_remainder(5e-4)
        np.testing.assert_allclose(ratios[-1], 2, rtol=0.05)
        assert (ratios > 1.9).all()


@pytest.mark.parametrize("beta", [0.01, 0.4])
def test_tied_and_linear_is_backprop_scaled_per_layer(beta):
    """With E = Wᵀ and φ the identity each hop multiplies the error by 2β Wᵀ."""
    with jax.enable_x64(True):
        network = lrajax.mlp((5, 4, 6, 3, 2), "identity")
        batch = reference.make_batch(network, 7)
        rule, yardstick = lrajax.lra_e(network, beta=beta), lrajax.backprop(network)
        tied = reference.tie(reference.make_params(rule))
        _, ours = reference.compute_whole(rule, tied, batch)
        _, theirs = reference.compute_whole(yardstick, tied, batch)
        assert diagnostics.layer_angles(ours, theirs).max() < 1e-3
        hops = (3, 2, 1, 0)
        for update, expected, n in zip(ours.forward, theirs.forward, hops, strict=True):
            unscaled = jax.tree.map(lambda a, n=n: a / (2 * beta) ** n, update)
            chex.assert_trees_all_close(unscaled, expected, rtol=1e-6, atol=1e-8)


def test_tied_v2_tends_to_backprop_as_beta_falls(network):
    """With E = Wᵀ, e^l / (2β)^hops → backprop's error, φ′ included, which V1 takes once more."""
    with jax.enable_x64(True):
        batch = reference.make_batch(network, 7)
        yardstick = lrajax.backprop(network)

        def angles(beta, derivative):
            rule = lrajax.lra_e(network, beta=beta, derivative=derivative)
            tied = reference.tie(reference.make_params(rule))
            (_, ours), (_, theirs) = (
                reference.compute_whole(r, tied, batch) for r in (rule, yardstick)
            )
            return diagnostics.layer_angles(ours, theirs)

        assert angles(1e-4, derivative=False).max() < 0.1
        assert angles(1e-4, derivative=True).max() > 5
        assert angles(0.1, derivative=False).max() > 1


@pytest.mark.parametrize(
    ("activation", "width", "bound"), [("relu", 8, 2e-3), ("tanh", 8, 2e-3), ("tanh", 256, 5e-3)]
)
def test_errors_outlive_a_small_beta_in_single_precision(activation, width, bound):
    """Six hops of 2β = 0.02 end far below what h's float32 resolves; nothing of them is lost."""
    network = lrajax.mlp((5, *6 * (width,), 2), activation)
    rule = lrajax.lra_e(network, beta=0.01, derivative=False)
    batch = reference.make_batch(network, 7)
    params = reference.make_params(rule)
    single, _ = reference.compute_whole(rule, params, batch)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, batch))
        double, _ = reference.compute_whole(rule, *wide)
    for ours, exact in zip(single.errors, double.errors, strict=True):
        ours, exact = np.asarray(ours), np.asarray(exact)
        error = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
        assert error < bound


def test_a_displacement_is_longer_by_example_and_only_below_what_h_resolves():
    h = jnp.array([[1.0, -4.0], [1.0, -4.0], [1.0, -4.0], [0.0, 0.0]])
    displacement = jnp.array([[1e-2, 0.0], [1e-6, -1e-7], [0.0, 0.0], [1e-9, 0.0]])
    k = _rounding.resolvable(displacement, h)
    # Half of float32's 24 digits below 4 = 2² is 2⁻¹⁰, and 1e-6 lies above 2⁻²⁰.
    np.testing.assert_array_equal(k, [[0], [10], [0], [0]])
    still = _lra_e.align(lrajax.dense(2, 2, "tanh"), h, jnp.tanh(h), 0 * h, lambda y, z: y - z)
    chex.assert_trees_all_equal(still, (jnp.tanh(h), 0 * h))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_what_h_resolves_is_told_by_the_digits_of_its_dtype(dtype):
    """Beside NumPy's frexp, which subnormal numbers alone differ from: they have one exponent."""
    with jax.enable_x64(dtype == "float64"):
        limits = jnp.finfo(dtype)
        h = jnp.full((30, 1), 3.0, dtype)
        displacement = jnp.asarray(2.0 ** -np.arange(30)[:, None], dtype)
        k = _rounding.resolvable(displacement, h)
        exponents = np.frexp(np.float64(displacement))[1].clip(limits.minexp)
        expected = np.clip(2 - exponents - (limits.nmant + 1) // 2, 0, -limits.minexp)
        seen = np.asarray(displacement) > 0
        np.testing.assert_array_equal(k, np.where(seen, expected, 0))
        layer = lrajax.dense(1, 1, "identity")
        _, change = _lra_e.align(layer, h, h, displacement, lambda y, z: y - z)
        rounding = 2.0 ** -((limits.nmant + 1) // 2 - 1)
        normal = np.asarray(displacement) >= limits.tiny
        ratio = -np.float64(change)[normal] / np.float64(displacement)[normal]
        np.testing.assert_allclose(ratio, 1, atol=rounding)


def test_of_wide_layers_some_units_tell_and_the_others_lose_nothing_by_it():
    """Every seventh of 128; another one's displacement is then what it is."""
    h, z = jnp.full((1, 4, 32), 0.5), jnp.full((1, 4, 32), jnp.tanh(0.5))
    for unit, longer in ((14, True), (15, False)):
        displacement = jnp.zeros(128).at[unit].set(1e-5).reshape(h.shape)
        k = _rounding.resolvable(displacement, h)
        assert k.shape == (1, 1, 1)
        assert (k.item() > 0) == longer
        tanh = lrajax.dense(1, 1, "tanh")._replace(out_shape=(4, 32))
        _, change = _lra_e.align(tanh, h, z, displacement, lambda y, z: y - z)
        expected = np.zeros(128)
        expected[unit] = -1e-5 * (1 - np.tanh(0.5) ** 2)
        np.testing.assert_allclose(np.ravel(change), expected, rtol=1e-2, atol=1e-12)


@pytest.mark.parametrize("shape", [(16, 16, 32), (8, 8, 31), (4, 4, 8), (4, 4, 14)])
def test_a_feature_without_errors_does_not_speak_for_the_others(shape):
    """Each in turn: what it alone would ask for would drive the others into saturation."""
    h = jnp.full((shape[-1], *shape), 0.5)
    silent = jnp.eye(shape[-1])[:, None, None, :]
    k = _rounding.resolvable(jnp.where(silent, 1e-20, 1e-6 * jnp.ones(h.shape)), h)
    np.testing.assert_array_equal(np.ravel(k), k[0].item())
    assert 0 < k[0].item() < 12


def test_error_weights_become_the_transpose_if_both_decay(network, batch):
    """E and Wᵀ move alike when γ = 1, so that their difference shrinks by 1 - λκ a step."""
    rate, decay, steps = 0.1, 0.5, 20
    rule = lrajax.lra_e(network, derivative=False)
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
    params = start = reference.make_params(rule)
    for _ in range(steps):
        _, updates = reference.compute(rule, params, batch)
        deltas, _ = optimizer.update(updates, optimizer.init(params), params)
        params = optax.apply_updates(params, deltas)
    for l in (1, 2, 3):
        before, after = (p.feedback[l]["w"] - p.forward[l]["w"] for p in (start, params))
        assert np.abs(params.forward[l]["w"] - start.forward[l]["w"]).max() > 0.05
        np.testing.assert_allclose(after, (1 - rate * decay) ** steps * before, atol=1e-5)


def test_gamma_scales_the_error_weights_update_alone(network, batch):
    params = reference.make_params(lrajax.lra_e(network))
    rules = (lrajax.lra_e(network, gamma=gamma) for gamma in (0.0, 0.5, 1.0))
    none, half, one = (reference.compute(rule, params, batch)[1] for rule in rules)
    chex.assert_trees_all_close(none.forward, one.forward)
    chex.assert_trees_all_close(half.feedback, jax.tree.map(lambda e: e / 2, one.feedback))
    assert not any(np.any(e) for e in jax.tree.leaves(none.feedback))


@functools.cache
def after_training_on_digits(derivative):
    digits = load_digits()
    examples = training.Examples(digits.data.astype(np.uint8), digits.target)
    network = lrajax.mlp((64, 32, 32, 10))
    algo = lrajax.lra_e(network, derivative=derivative)
    optimizer = optax.sgd(0.01)
    step = training.make_train_step(algo, optimizer)
    epoch = jax.jit(training.make_train_epoch(step, 50, num_classes=10, max_pixel=16.0))
    state = start = training.init_state(algo, optimizer, jax.random.key(0))
    for _ in range(8):
        state, metrics = epoch(state, examples)
    batch = training.to_batch(examples, jnp.arange(200), 10, 16.0)
    return network, algo, start.params, state.params, metrics, batch


@pytest.mark.parametrize("derivative", [True, False])
def test_error_weights_come_to_align_with_forward_weights(derivative):
    """Shows the sign of ΔE: with the printed one the angle rises and training collapses."""
    *_, before, after, metrics, _ = after_training_on_digits(derivative)
    angles = diagnostics.feedback_angles(after)
    assert (angles < diagnostics.feedback_angles(before) - 10).all()
    assert (angles < 80).all()
    assert metrics.error < 10


def test_update_stays_within_90_degrees_of_backprop_after_training():
    network, algo, _, params, _, batch = after_training_on_digits(True)
    per_layer, overall = diagnostics.update_angles_to_backprop(
        lrajax.backprop(network), algo, params, batch
    )
    assert (per_layer < 90).all()
    assert overall < 90


def test_a_scan_of_steps_copies_no_error_weights():
    """Each E is written over: the updates wait for the errors, which are what reads it."""
    algo, optimizer = lrajax.lra_e(lrajax.mlp((7, 12, 12, 12, 12, 3))), optax.sgd(0.01)
    step = training.make_train_step(algo, optimizer)
    state = training.init_state(algo, optimizer, jax.random.key(0))
    batches = lrajax.Batch(np.zeros((9, 5, 7), np.float32), np.zeros((9, 5, 3), np.float32))

    def run(state, batches):
        return jax.lax.scan(lambda *operands: (step(*operands)[0], None), state, batches)[0]

    program = jax.jit(run).lower(state, batches).compile().as_text()
    # before the loop, three W and three E: what is handed over is not the caller's
    assert program.count("= f32[12,12]{1,0} copy(") <= 6


def test_updates_that_wait_are_the_same_unless_the_error_is_lost():
    updates = {"w": jnp.arange(6.0).reshape(2, 3)}
    for error in (jnp.ones((4, 2)), jnp.ones((0, 2))):
        chex.assert_trees_all_equal(steps.once_known(error, updates), updates)
    assert np.isnan(steps.once_known(jnp.full((4, 2), jnp.nan), updates)["w"]).all()
