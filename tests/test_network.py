import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax
from lrajax import losses, steps


@pytest.mark.parametrize("sizes", [(5, 4, 2), (5, 4, 6, 3, 2), [784, 256, 10]])
def test_mlp_has_a_layer_between_each_pair_of_sizes(sizes):
    network = lrajax.mlp(sizes)
    assert [layer.in_shape for layer in network.layers] == [(n,) for n in sizes[:-1]]
    assert [layer.out_shape for layer in network.layers] == [(n,) for n in sizes[1:]]
    assert network.output_loss is losses.categorical


@pytest.mark.parametrize("activation", reference.PHI)
def test_forward_equals_numpy(activation):
    network = lrajax.mlp((5, 4, 6, 3, 2), activation)
    algo = lrajax.backprop(network)
    params, batch = reference.make_params(algo), reference.make_batch(network, 7)
    h, z = steps.forward(network, params.forward, batch.x)
    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    h_numpy, z_numpy = reference.forward(w, b, reference.columns(batch)[0], activation)
    reference.assert_columns(h, h_numpy)
    reference.assert_columns(z, z_numpy)


@pytest.mark.parametrize(
    ("sizes", "activation", "message"),
    [
        ((5, 2), "tanh", "sizes"),
        ((), "tanh", "sizes"),
        ((5, 0, 2), "tanh", "sizes=0"),
        ((5, 4, 2), "softmax", "activation"),
        ((5, 4, 2), "thanh", "activation='thanh'.*did you mean 'tanh'"),
    ],
)
def test_bad_arguments_are_named(sizes, activation, message):
    with pytest.raises(ValueError, match=message):
        lrajax.mlp(sizes, activation)


def test_reduce_batch():
    delta = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(steps.reduce_batch(delta, "sum").sum(axis=0), [6, 9])
    np.testing.assert_allclose(steps.reduce_batch(delta, "mean").sum(axis=0), [2, 3])
