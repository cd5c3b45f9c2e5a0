"""Convolutional and locally connected layers against loops over pixels."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrajax
from lrajax import layers
from lrajax.layers import convolution

B = 2
# (in_shape, features, kernel, stride, pool): even and odd sides, kernels that padding cannot centre
CONVS = [
    ((4, 6, 2), 3, 3, 1, 1),
    ((3, 9, 5), 4, 3, 1, 1),
    ((5, 4, 1), 2, 3, 2, 1),
    ((5, 7, 2), 3, 2, 1, 2),
    ((6, 5, 1), 2, 4, 2, 3),
]
# and (padding, dilation, groups)
WIDER = [
    ((5, 6, 2), 3, 3, 1, 1, "VALID", 1, 1),
    ((6, 7, 2), 4, 2, 2, 1, "VALID", 2, 2),
    ((3, 4, 2), 2, 3, 2, 1, "VALID", 1, 1),  # one window
    ((7, 5, 4), 6, 3, 1, 2, "SAME", 2, 2),
    ((5, 4, 3), 3, 2, 2, 1, "SAME", 3, 3),
]
LOCAL = [((4, 3, 2), 3, 3, 1), ((5, 4, 1), 2, 2, 2)]


def make(in_shape, features, kernel, stride, *wider):
    if not wider:
        return layers.locally_connected(in_shape, features, kernel, stride=stride)
    options = dict(zip(("pool", "padding", "dilation", "groups"), wider, strict=False))
    return layers.conv(in_shape, features, kernel, stride=stride, **options)


every_layer = pytest.mark.parametrize("arguments", CONVS + WIDER + LOCAL)


KEY = jax.random.key(0)


@functools.cache
def case(arguments):
    """A layer, arrays for it, and what the library makes of them, in one program."""
    layer = make(*arguments)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: layer.init(key, lrajax.initializers.GLOROT), KEY)
    theta = {name: rng.normal(size=a.shape).astype(np.float32) for name, a in shapes.items()}
    z, delta, down = (
        rng.normal(size=(B, *shape)).astype(np.float32)
        for shape in (layer.in_shape, layer.out_shape, layer.in_shape)
    )

    @jax.jit
    def products():
        e = {"w": theta["w"]}
        return {
            "pre": layers.pre(layer, theta, z),
            "feedback": layers.feedback(layer, e, z, delta),
            "vjp_below": layers.vjp_below(layer, theta, z, delta),
            "vjp_theta": layers.vjp_theta(layer, theta, z, delta),
            "vjp_feedback": layers.vjp_feedback(layer, e, z, delta, down),
        }

    return layer, theta, (z, delta, down), products()


def windows(image, kernel, stride, padding="SAME", dilation=1):
    """(row, column, window) for every position; SAME padding has its odd pixel after the image."""
    height, width, _ = image.shape
    span = (kernel - 1) * dilation + 1
    top, left, rows, columns = 0, 0, (height - span) // stride + 1, (width - span) // stride + 1
    if padding == "SAME":
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        top = max((rows - 1) * stride + span - height, 0) // 2
        left = max((columns - 1) * stride + span - width, 0) // 2
    padded = np.zeros((height + 3 * span, width + 3 * span, image.shape[2]))
    padded[top : top + height, left : left + width] = image
    for row in range(rows):
        for column in range(columns):
            i, j = row * stride, column * stride
            yield row, column, padded[i : i + span : dilation, j : j + span : dilation]


def pre_of_conv(w, b, image, kernel, stride, pool, padding="SAME", dilation=1, groups=1):
    # Each feature map sees the channels of its group: elsewhere a whole kernel is zero.
    per_group = len(b) // groups
    whole = np.zeros((kernel, kernel, image.shape[2], len(b)))
    for f in range(len(b)):
        first = f // per_group * w.shape[2]
        whole[:, :, first : first + w.shape[2], f] = w[..., f]
    cut = windows(image, kernel, stride, padding, dilation)
    h = {(r, c): np.tensordot(x, whole, 3) + b for r, c, x in cut}
    rows, columns = (1 + max(position[i] for position in h) for i in (0, 1))
    pooled = np.zeros((rows // pool, columns // pool, len(b)))
    for r in range(rows // pool):
        for c in range(columns // pool):
            block = [h[r * pool + i, c * pool + j] for i in range(pool) for j in range(pool)]
            pooled[r, c] = sum(block) / pool**2
    return pooled


def pre_of_local(w, b, image, kernel, stride):
    h = np.array(b)
    for row, column, x in windows(image, kernel, stride):
        h[row, column] += np.tensordot(x, w[row, column], 3)
    return h


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@every_layer
def test_pre_activity_equals_the_loops(arguments):
    layer, theta, (z, _, _), products = case(arguments)
    slow = pre_of_local if len(arguments) == 4 else pre_of_conv
    expected = [slow(theta["w"], theta["b"], image, *arguments[2:]) for image in z]
    assert layer.out_shape == expected[0].shape
    close(products["pre"], np.array(expected))


@pytest.mark.parametrize("arguments", [w for w in WIDER if w[4] == 1])
def test_convolutions_are_those_of_xla(arguments):
    _, theta, (z, _, _), products = case(arguments)
    stride, _, padding, dilation, groups = arguments[3:]
    expected = jax.lax.conv_general_dilated(
        z,
        theta["w"],
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    close(products["pre"], np.asarray(expected) + theta["b"])


@every_layer
def test_products_are_those_with_explicit_matrices(arguments):
    """The loops' own, from unit vectors: h = z M + b = w N + b."""
    layer, theta, (z, delta, down), products = case(arguments)
    slow = pre_of_local if len(arguments) == 4 else pre_of_conv
    w, b = theta["w"], np.zeros_like(theta["b"])

    def matrix(function, shape):
        units = np.eye(layers.size(shape)).reshape(-1, *shape)
        return np.array([function(unit).ravel() for unit in units])

    def in_w(image):
        return matrix(lambda w: slow(w, b, image, *arguments[2:]), w.shape)

    in_z = matrix(lambda z: slow(w, b, z, *arguments[2:]), layer.in_shape)
    below = (delta.reshape(B, -1) @ in_z.T).reshape(z.shape)
    close(products["vjp_below"], below)
    close(products["feedback"], below)

    of_w = sum(in_w(image) @ d.ravel() for image, d in zip(z, delta, strict=True))
    close(products["vjp_theta"]["w"], of_w.reshape(w.shape))
    shared = tuple(range(delta.ndim - b.ndim))  # the batch, and positions if they share biases
    close(products["vjp_theta"]["b"], delta.sum(axis=shared))

    # feedback(e, z, delta) · down = delta · product(e, down): its derivative is pre's, at down.
    of_e = sum(in_w(image) @ d.ravel() for image, d in zip(down, delta, strict=True))
    close(products["vjp_feedback"]["w"], of_e.reshape(w.shape))


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("axes", [(0, None), (2, None), (None, 1), (0, 0), (1, 4)])
def test_mapped_convolutions_are_those_one_by_one(axes, channels):
    """As are the transposes of mapped ones and the maps of transposed ones."""
    rng = np.random.default_rng(0)
    shapes = (4, 9, channels), (3, 2, channels, 6)
    pads = (1, 1), (0, 1)
    many = [
        rng.normal(size=shape if axis is None else (*shape[:axis], B, *shape[axis:]))
        for shape, axis in zip(shapes, axes, strict=True)
    ]

    def of_xla(image, kernel, pads):
        order = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            image[None], kernel, (1, 1), pads, dimension_numbers=order
        )[0]

    def values_and_gradients(convolve):
        def cubes(image, kernel):
            return (convolve(image, kernel, pads) ** 3).sum()

        def mapped(*operands):
            return jax.vmap(cubes, axes)(*operands).sum()

        both = (0, 1)
        return jax.jit(
            lambda *operands: (
                jax.value_and_grad(mapped, both)(*operands),
                jax.vmap(jax.value_and_grad(cubes, both), axes)(*operands),
                # of the gradients in turn, as rules take updates of what carries errors down
                jax.grad(lambda *o: (jax.grad(mapped, 0)(*o) ** 2).sum(), both)(*operands),
            )
        )(*(a.astype(np.float32) for a in many))

    found, expected = map(values_and_gradients, (convolution.convolve, of_xla))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


@pytest.mark.parametrize(
    ("sides", "pads"),
    [
        ((8, 12), ((1, 1), (1, 1))),
        ((11, 8), ((1, 1), (1, 1))),
        ((8, 6), ((1, 1), (1, 1))),
        ((7, 9), ((1, 1), (1, 1))),
        ((7, 8), ((0, 0), (0, 0))),
        ((5, 5), ((2, 0), (0, 1))),
        ((3, 3), ((0, 0), (0, 0))),
        ((1, 1), ((1, 1), (1, 1))),
    ],
)
def test_convolutions_in_tiles_and_both_transposes_are_those_of_xla(sides, pads):
    """Kernels of 3 × 3 with many channels take fewer products, whatever is left over at an edge."""
    rng = np.random.default_rng(0)
    channels, features = convolution.MANY, convolution.MANY + 3
    images = rng.normal(size=(B, *sides, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels, features)).astype(np.float32)

    def of_xla(images, kernel):
        order = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), pads, dimension_numbers=order)

    def in_tiles(images, kernel):
        return jax.vmap(lambda image: convolution.convolve(image, kernel, pads))(images)

    assert "dot_general" in str(
        jax.make_jaxpr(convolution._maps, static_argnums=2)(images, kernel, pads)
    )
    shape = jax.eval_shape(in_tiles, images, kernel).shape
    error = rng.normal(size=shape).astype(np.float32)

    def with_transposes(convolve):
        """Values and both transposes, in a program."""

        def below(error, kernel):
            return jax.vjp(lambda image: convolve(image, kernel), images)[1](error)[0]

        def update(images, error):
            return jax.vjp(lambda kernel: convolve(images, kernel), kernel)[1](error)[0]

        def all_of(images, kernel, error):
            cases = ((convolve, images, kernel, error), (below, error, kernel, images))
            for function, *operands, other in (*cases, (update, images, error, kernel)):
                value, transposed = jax.vjp(function, *operands)
                yield value, *transposed(other)

        found = jax.jit(lambda *operands: list(all_of(*operands)))(images, kernel, error)
        return jax.tree.leaves(found)

    for a, b in zip(with_transposes(in_tiles), with_transposes(of_xla), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.float32, {"b01f_01io->b01f"}), (jnp.bfloat16, set())]
)
def test_convolutions_inside_a_scan_are_those_that_xla_has_a_program_for(dtype, expected):
    """Its loops for other orders and dtypes are fifty times as slow, and it does not warn."""
    layer = layers.conv((8, 8, 4), 6, 3)
    rng = np.random.default_rng(0)
    batches = rng.normal(size=(3, B, 8, 8, 4)).astype(dtype)

    def step(w, z):
        def loss(w, z):
            return (layers.pre(layer, {"w": w, "b": np.zeros(6, dtype)}, z) ** 2).sum()

        by_w, by_z = jax.grad(loss, (0, 1))(w, z)
        return w - by_w, by_z

    w = rng.normal(size=(3, 3, 4, 6)).astype(dtype)
    program = jax.jit(lambda w, batches: jax.lax.scan(step, w, batches))
    orders = re.findall("dim_labels=([^, ]+)", program.lower(w, batches).compile().as_text())
    assert set(orders) == expected


def test_initialisers_see_one_kernel():
    seen = []

    def initializer(key, shape):
        seen.append(shape)
        return jax.random.normal(key, shape)

    for layer in (
        layers.conv((5, 4, 2), 3, 3),
        layers.locally_connected((5, 4, 2), 3, 3, stride=2),
    ):
        theta, e = layer.init(KEY, initializer), layer.init_feedback(KEY, initializer)
        assert theta["w"].shape == e["w"].shape
        assert set(e) == {"w"}
        assert not theta["b"].any()
    assert set(seen) == {(3, 3, 2, 3)}
    kernels = np.asarray(theta["w"]).reshape(-1, 3 * 3 * 2 * 3)
    assert len(np.unique(kernels, axis=0)) == len(kernels) == 3 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), 2, 3), r"in_shape=\(4, 4\) must be \(H, W, C\)"),
        (((4, 4, 0), 2, 3), "in_shape="),
        (((4, 4, 1), 0, 3), "features=0"),
        (((4, 4, 1), 2, 0), "kernel=0"),
    ],
)
@pytest.mark.parametrize("kind", [layers.conv, layers.locally_connected])
def test_bad_arguments_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 0}, "stride=0"),
        ({"pool": 0}, "pool=0"),
        ({"pool": 3, "stride": 2}, "pool=3 exceeds"),
        ({"pool": 3, "kernel": 1, "in_shape": (4, 2, 1)}, "pool=3 exceeds"),
        ({"pool": 3, "kernel": 1, "in_shape": (2, 4, 1)}, "pool=3 exceeds"),
        ({"padding": "same"}, "padding='same' is unknown: choose one of SAME, VALID"),
        ({"dilation": 0}, "dilation=0"),
        (
            {"padding": "VALID", "dilation": 2},
            r"kernel=3 spans 5 pixels, more than in_shape=\(4, 4",
        ),
        ({"groups": 0}, "groups=0"),
        ({"groups": 2}, "groups=2 must divide 1 channels and 2 features"),
        ({"activation": "tan"}, "activation='tan'"),
    ],
)
def test_bad_options_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        layers.conv(**{"in_shape": (4, 4, 1), "features": 2, "kernel": 3, **changes})
