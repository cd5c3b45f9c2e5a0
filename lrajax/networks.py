"""Networks: `mlp` and `autoencoder` by their sizes, and those for images by name.

Of the latter each is a function `(image_shape, num_classes) -> Network`.

All take images FLAT, as `lrajax.data` has them, and answer with a softmax. `image_shape` is (H, W)
or (H, W, C).
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from lrajax import layers, losses
from lrajax.base import Layer, Network
from lrajax.checks import counts, one_of

ALWAYS_POSITIVE = ("sigmoid", "softplus")  # activations without a sign to send


def mlp(sizes: Sequence[int], activation: str = "tanh") -> Network:
    """A multilayer perceptron with a softmax output and a categorical loss.

    Args:
      sizes: units per layer, input first: (784, 256, 256, 256, 10) has three hidden layers.
      activation: of the hidden layers, a key of `lrajax.layers.ACTIVATIONS` or `kwta:FRACTION`.

    Raises:
      ValueError: fewer than one hidden layer, a size below 1, or an unknown activation.
    """
    sizes = counts("sizes", sizes)
    if len(sizes) < 3:
        raise ValueError(f"sizes={tuple(sizes)} must name the input, a hidden layer and the output")
    return Network(_dense_layers(sizes, activation, "softmax"), losses.categorical)


# Activation and loss of outputs that reconstruct the input.
RECONSTRUCTIONS = {
    "bernoulli": ("sigmoid", losses.bernoulli),
    "gaussian": ("identity", losses.half_squared),
}


def autoencoder(
    sizes: Sequence[int], output: str = "bernoulli", activation: str = "tanh"
) -> Network:
    """An autoencoder, whose decoder has the encoder's sizes in reverse: train it on Batch(x, x).

    Args:
      sizes: units per layer of the encoder, input first and code last: (784, 256, 32).
      output: "bernoulli" (sigmoid and cross-entropy, for pixels in [0, 1]) or "gaussian" (identity
        and ½‖x - z‖²).
      activation: see `mlp`.

    Raises:
      ValueError: no code, a size below 1, an unknown output or activation.
    """
    one_of("output", output, RECONSTRUCTIONS)
    sizes = counts("sizes", sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes={tuple(sizes)} must name the input and the code")
    link, loss = RECONSTRUCTIONS[output]
    return Network(_dense_layers((*sizes, *sizes[-2::-1]), activation, link), loss)


def _dense_layers(sizes: Sequence[int], activation: str, link: str) -> tuple[Layer, ...]:
    """Dense layers with an activation, and with `link` at the output."""
    if activation == "softmax":
        raise ValueError("activation='softmax' is for outputs: choose another for hidden layers")
    activations = [activation] * (len(sizes) - 2) + [link]
    return tuple(map(layers.dense, sizes[:-1], sizes[1:], activations))


def image_mlp(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    hidden_layers: int = 3,
    width: int = 256,
    activation: str = "tanh",
) -> Network:
    """A multilayer perceptron, `lrajax.mlp`."""
    sizes = (layers.size(tuple(image_shape)), *[width] * hidden_layers, num_classes)
    return mlp(sizes, activation)


def resmlp(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    hidden_layers: int = 3,
    width: int = 256,
    activation: str = "tanh",
) -> Network:
    """A multilayer perceptron with a skip connection around every hidden layer but the first."""
    first, *others, output = image_mlp(
        image_shape, num_classes, hidden_layers=hidden_layers, width=width, activation=activation
    ).layers
    return Network((first, *map(layers.residual, others), output), losses.categorical)


def mlp_bfloat16(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    hidden_layers: int = 3,
    width: int = 256,
    activation: str = "tanh",
) -> Network:
    """A multilayer perceptron whose products take bfloat16 operands, on any device."""
    plain = image_mlp(
        image_shape, num_classes, hidden_layers=hidden_layers, width=width, activation=activation
    )
    return plain._replace(layers=tuple(map(layers.bfloat16, plain.layers)))


def mlp_binary(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    hidden_layers: int = 3,
    width: int = 256,
    activation: str = "tanh",
) -> Network:
    """A multilayer perceptron whose hidden units send the sign of their activity alone.

    Raises:
      ValueError: an activation that is always positive.
    """
    if activation in ALWAYS_POSITIVE:
        raise ValueError(
            f"activation={activation!r} is always positive, so every unit would send 1: choose "
            "tanh or hard_tanh"
        )
    plain = image_mlp(
        image_shape, num_classes, hidden_layers=hidden_layers, width=width, activation=activation
    )
    first, *others = plain.layers
    return plain._replace(layers=(first, *map(layers.binary, others)))


def lenet(
    image_shape: Sequence[int], num_classes: int, *, width: int = 6, activation: str = "tanh"
) -> Network:
    """Two convolutions with average pooling, three dense layers (LeCun et al. 1998, LeNet-5).

    The convolutions have width and 8/3 × width feature maps, 6 and 16 in LeNet-5. Both are padded
    here, in LeNet-5 the first alone.
    """
    first = layers.conv(_image(image_shape), width, 5, pool=2, activation=activation)
    second = layers.conv(first.out_shape, 8 * width // 3, 5, pool=2, activation=activation)
    return _classifier((first, second), (120, 84, num_classes), activation)


def locally_connected_net(
    image_shape: Sequence[int], num_classes: int, *, width: int = 8, activation: str = "tanh"
) -> Network:
    """Two locally connected layers, with width and 2 × width features at each position."""
    first = layers.locally_connected(_image(image_shape), width, 5, stride=2, activation=activation)
    second = layers.locally_connected(
        first.out_shape, 2 * width, 3, stride=2, activation=activation
    )
    return _classifier((first, second), (num_classes,), activation)


def resnet_small(
    image_shape: Sequence[int], num_classes: int, *, width: int = 16, activation: str = "tanh"
) -> Network:
    """Six normalised convolutions, four of them with a skip connection.

    Two stages, of `width` and 2 × `width` feature maps: a convolution with stride 2, then two that
    the activity can pass by.
    """
    body: list[Layer] = []
    shape = _image(image_shape)
    for features in (width, 2 * width):
        down = layers.conv(shape, features, 3, stride=2, activation=activation)
        shape = down.out_shape
        same = layers.residual(layers.conv(shape, features, 3, activation=activation))
        body += map(layers.layer_norm, (down, same, same))
    return _classifier(body, (num_classes,), activation)


def vgg5(
    image_shape: Sequence[int], num_classes: int, *, width: int = 32, activation: str = "relu"
) -> Network:
    """Four 3 × 3 convolutions of w, 2w, 4w, 4w features, 2 × 2 maxima after each, and an output."""
    return _vgg(image_shape, num_classes, [[1], [2], [4], [4]], width, activation)


def vgg7(
    image_shape: Sequence[int], num_classes: int, *, width: int = 32, activation: str = "relu"
) -> Network:
    """Six convolutions in pairs of w, 2w, 4w features, maxima after each pair, and an output."""
    return _vgg(image_shape, num_classes, [[1, 1], [2, 2], [4, 4]], width, activation)


def vgg9(
    image_shape: Sequence[int], num_classes: int, *, width: int = 32, activation: str = "relu"
) -> Network:
    """Eight convolutions in pairs of w, 2w, 4w, 4w features, maxima after each, and an output."""
    return _vgg(image_shape, num_classes, [[1, 1], [2, 2], [4, 4], [4, 4]], width, activation)


def recurrent(
    image_shape: Sequence[int], num_classes: int, *, width: int = 64, activation: str = "tanh"
) -> Network:
    """A recurrent network that reads an image row by row, unrolled: a layer a row, and an output.

    Its layers of rows have weights of one shape, for `lrajax.compose.tied` to share. A layer's
    activity is its `width` units, followed by the rows that are still to be read.

    Raises:
      ValueError: inputs that are no images.
    """
    if len(image_shape) < 2:
        raise ValueError(f"image_shape={tuple(image_shape)} must be (H, W) or (H, W, C)")
    rows, row = image_shape[0], layers.size(tuple(image_shape[1:]))
    reading = [_read(width, row, left, activation) for left in range(rows, 0, -1)]
    # No units are active before the first row.
    first = reading[0]._replace(
        in_shape=(rows * row,),
        pre=lambda theta, z: reading[0].pre(
            theta, jnp.concatenate([jnp.zeros_like(z, shape=width), z])
        ),
    )
    output = layers.dense(width, num_classes, "softmax")
    return Network((first, *reading[1:], output), losses.categorical)


def _read(width: int, row: int, left: int, activation: str) -> Layer:
    """A layer that reads the next of the rows that are left, and hands on the others."""
    cell = layers.dense(width + row, width, activation)
    rest = (left - 1) * row
    return cell._replace(
        in_shape=(width + left * row,),
        out_shape=(width + rest,),
        pre=lambda theta, z: jnp.concatenate([cell.pre(theta, z[: width + row]), z[width + row :]]),
        post=lambda h: jnp.concatenate([cell.post(h[:width]), h[width:]]),
        feedback=None,
    )


def resnet18(
    image_shape: Sequence[int], num_classes: int, *, width: int = 64, activation: str = "relu"
) -> Network:
    """ResNet-18 for small images (He et al. 2016): a 3 × 3 convolution, eight blocks, an output.

    The blocks, of two normalised convolutions and a skip each, are units of the network. They have
    w, 2w, 4w and 8w features, two blocks each; sides are halved where features double. Norms are
    over the mini-batch.
    """
    stem = layers.conv(_image(image_shape), width, 3, activation=activation)
    body = [layers.reshaped(layers.batch_norm(stem), (layers.size(stem.in_shape),))]
    for multiple in (1, 2, 4, 8):
        for stride in (1 if multiple == 1 else 2, 1):
            body.append(_block(body[-1].out_shape, multiple * width, stride, activation))
    output = layers.dense(8 * width, num_classes, "softmax")
    top = layers.globally_pooled(output, body[-1].out_shape)
    return Network((*body, top), losses.categorical)


def _block(shape: tuple[int, ...], features: int, stride: int, activation: str) -> Layer:
    """Two normalised convolutions of 3 × 3 with a skip, projected where the shape changes."""
    first = layers.conv(shape, features, 3, stride=stride, activation=activation)
    second = layers.conv(first.out_shape, features, 3, activation=activation)
    both = layers.chain(layers.batch_norm(first), layers.batch_norm(second))
    if both.out_shape == shape:
        return layers.residual(both)
    return layers.residual(both, layers.batch_norm(layers.conv(shape, features, 1, stride=stride)))


def _vgg(
    image_shape: Sequence[int],
    num_classes: int,
    stages: Sequence[Sequence[int]],
    width: int,
    activation: str,
) -> Network:
    """Stages of 3 × 3 convolutions, features in multiples of width, and maxima after each stage."""
    shape = _image(image_shape)
    body: list[Layer] = []
    for stage in stages:
        for i, multiple in enumerate(stage):
            # The maxima of a stage are taken by the layer above it.
            below = body[-1].out_shape if body else shape
            takes = _halved(below) if body and i == 0 else below
            layer = layers.conv(takes, multiple * width, 3, activation=activation)
            body.append(layer if takes == below else layers.pooled(layer, 2, in_shape=below))
    top = body[-1].out_shape
    output = layers.dense(layers.size(_halved(top)), num_classes, "softmax")
    output = layers.pooled(layers.reshaped(output, _halved(top)), 2, in_shape=top)
    inputs = layers.reshaped(body[0], (layers.size(shape),))
    return Network((inputs, *body[1:], output), losses.categorical)


def _halved(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of maps (H, W, C) after pooling by 2."""
    return shape[0] // 2, shape[1] // 2, shape[2]


NETWORKS: dict[str, Callable[..., Network]] = {
    "mlp": image_mlp,
    "mlp_bfloat16": mlp_bfloat16,
    "mlp_binary": mlp_binary,
    "lenet": lenet,
    "locally_connected": locally_connected_net,
    "resmlp": resmlp,
    "resnet_small": resnet_small,
    "resnet18": resnet18,
    "vgg5": vgg5,
    "vgg7": vgg7,
    "vgg9": vgg9,
}
"""What `--network` names: functions of the shape of an image and the number of classes."""
# Networks that take images, and the least side in pixels: they halve it a number of times.
FOR_IMAGES = {
    "lenet": 4,
    "locally_connected": 4,
    "resnet_small": 4,
    "resnet18": 8,
    "vgg5": 16,
    "vgg7": 8,
    "vgg9": 16,
}


def _image(image_shape: Sequence[int]) -> tuple[int, ...]:
    """(H, W, C)."""
    return tuple(image_shape) if len(image_shape) == 3 else (*image_shape, 1)


def _classifier(body: Sequence[Layer], sizes: Sequence[int], activation: str) -> Network:
    """Layers of images, between flat images and dense layers of the given sizes."""
    first, top = body[0], body[-1]
    inputs = layers.reshaped(first, (layers.size(first.in_shape),))
    flat = layers.size(top.out_shape)
    activations = [activation] * (len(sizes) - 1) + ["softmax"]
    lowest, *others = map(layers.dense, (flat, *sizes[:-1]), sizes, activations)
    head = (layers.reshaped(lowest, top.out_shape), *others)
    return Network((inputs, *body[1:], *head), losses.categorical)
