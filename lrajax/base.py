"""The types every part of lrajax speaks: batches, parameters, calculations, layers, rules.

A learning rule is an `Algorithm`: a NamedTuple of pure functions with the hyperparameters closed
over. It works on a `Network`, a sequence of `Layer`s, and never looks inside a layer: it asks for
the layer's pre-activity, post-activity and feedback, and for their vector-Jacobian products
(`lrajax.layers`).

Index `l` of any per-layer tuple counts from 0 for the first hidden layer, so that entry `l` holds
what the paper writes with the superscript l + 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

PyTree = Any
Values = Array | np.ndarray
Initializer = Callable[[PRNGKeyArray, tuple[int, ...]], Array]


class Batch(NamedTuple):
    """A mini-batch.

    Attributes:
      x: float32 [B, *in_shape], inputs in [0, 1].
      y: float32 [B, *out_shape], targets; one-hot for classification.
    """

    x: Float[Array, "B ..."]
    y: Float[Array, "B ..."]


class IndexedBatch(NamedTuple):
    """A mini-batch that knows which examples are in it, for rules with a state of each example.

    Attributes:
      x: as in `Batch`.
      y: as in `Batch`.
      rows: int32 [B], where they stand in the training set, each at most once.
    """

    x: Float[Array, "B ..."]
    y: Float[Array, "B ..."]
    rows: Int[Array, " B"]


class Params(NamedTuple):
    """Parameters of a network under a rule, or anything of the same shape (updates, moments).

    Attributes:
      forward: one entry per layer; a dense layer's is `{"w": [n_in, n_out], "b": [n_out]}`.
      feedback: one entry per layer, whatever the rule needs, `()` where it needs nothing. Entry
        `l` carries something from layer `l` (or, for DFA, the output) to the activity below it.
    """

    forward: tuple[PyTree, ...]
    feedback: tuple[PyTree, ...]


class Calculations(NamedTuple):
    """What `compute_targets` found for a mini-batch: Λ in the paper's Algorithm 1.

    Every tuple has one entry per layer, first layer first, each float32 [B, *out_shape].

    Attributes:
      x: the input, the paper's z^0.
      h: pre-activities.
      z: post-activities.
      targets: target representations; the last one is the label (of equilibrium propagation, the
        nudged output). A rule that computes no targets (backprop, RFA, DFA) gives z - dL/dz, the
        target its error stands for.
      errors: dL/dz of each layer's loss, but dL/dh for the output layer.
      aux: what one rule alone needs.
      state: the rule's state after this mini-batch; `()` of a rule that keeps none.
    """

    x: Array
    h: tuple[Array, ...]
    z: tuple[Array, ...]
    targets: tuple[Array, ...]
    errors: tuple[Array, ...]
    aux: PyTree = ()
    state: PyTree = ()


def _no_state(theta: PyTree) -> PyTree:
    del theta
    return ()


def _unchanged(theta: PyTree, state: PyTree, z_below: Array) -> PyTree:
    del theta, z_below
    return state


class Layer(NamedTuple):
    """A layer: pure functions of ONE example; `lrajax.layers` maps them over mini-batches.

    A layer with a state, such as the running statistics of a norm, has names in it that theta has
    not. `pre` looks for them in theta: it finds them there in `predict`, and in training, where
    they are not, it does without, as a norm does with the statistics of the mini-batch.

    Attributes:
      in_shape: shape of the activity below, without the batch.
      out_shape: shape of this layer's.
      init: `(key, initializer) -> theta`, forward parameters.
      init_feedback: `(key, initializer) -> e`, feedback weights: a dictionary that shares its
        names, shapes and orientation with the entries of theta that it mirrors.
      pre: `(theta, z_below) -> h`, the pre-activity. Affine in theta: linear, but for what needs
        no parameters, such as a skip connection.
      post: `h -> z`, the post-activity.
      feedback: `(e, z_below, error) -> displacement`, linear in the error: the transpose of `pre`'s
        derivative with respect to `z_below`, with e in the place of theta. None, the default, has
        it derived; write it where it can be done faster.
      init_state: `theta -> state`, before the first step; `()` of a layer that keeps none.
      remember: `(theta, state, z_below) -> state`, after a mini-batch: the same for each of its
        examples, so a mean over the mapped axis `layers.EXAMPLES`.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    init: Callable[[PRNGKeyArray, Initializer], PyTree]
    init_feedback: Callable[[PRNGKeyArray, Initializer], PyTree]
    pre: Callable[[PyTree, Array], Array]
    post: Callable[[Array], Array]
    feedback: Callable[[PyTree, Array, Array], Array] | None = None
    init_state: Callable[[PyTree], PyTree] = _no_state
    remember: Callable[[PyTree, PyTree, Array], PyTree] = _unchanged


def _anything(z: np.ndarray) -> bool:
    del z
    return True


class Loss(NamedTuple):
    """A loss and its error unit, both for mini-batches.

    Attributes:
      value: `(y, z) -> [B]`, the loss of each example.
      error: `(y, z) -> [B, ...]`, its derivative with respect to z.
      link: the activation of an output whose dL/dh is z - y, the canonical one; None for none.
      fits: `z -> bool`, of NumPy arrays [B, ...]: whether the loss is defined for such activities.
    """

    value: Callable[[Array, Array], Array]
    error: Callable[[Array, Array], Array]
    link: Callable[[Array], Array] | None = None
    fits: Callable[[np.ndarray], bool] = _anything


class Network(NamedTuple):
    """What a rule trains.

    Any loss goes with any activation of the last layer that it is defined for. With its canonical
    link, softmax for the categorical, sigmoid for the Bernoulli, identity for the half squared, the
    output's error dL/dh is z - y.

    Attributes:
      layers: first to last.
      output_loss: the loss at the output.
    """

    layers: tuple[Layer, ...]
    output_loss: Loss


class ComputeTargets(Protocol):
    """Pure function `(params, batch, *, key) -> Calculations`.

    A rule with a state, one with `init_state`, takes it by the keyword `state`, and gives the new
    one in Λ; without it computes as before the first step, and keeps nothing. In training its
    batches know the rows of their examples, `IndexedBatch`.
    """

    def __call__(
        self, params: Params, batch: Batch, *, key: PRNGKeyArray | None = None
    ) -> Calculations:
        """Finds activities, targets and errors for a mini-batch.

        Args:
          params: the rule's parameters.
          batch: the mini-batch.
          key: needed by rules that draw noise; the others ignore it.

        Raises:
          ValueError: the batch does not fit the network, or a key is needed and missing.
        """
        ...


class Algorithm(NamedTuple):
    """A learning rule on a network: pure functions, not jitted; any state goes in and comes out.

    Attributes:
      init: `key -> Params`.
      compute_targets: see `ComputeTargets`.
      calc_updates: `(params, lambda_) -> Params`, a descent direction (to be subtracted, as optax
        does) with the tree of params; zeros for what the rule keeps fixed.
      predict: `(params, x) -> [B, *out_shape]`, what the network answers.
      loss: `(y, prediction) -> [B]`, the output loss that the rule reduces.
      network: whose layers' states are kept (`lrajax.training`); None of a rule that has no layers.
      init_state: `(params, num_examples) -> state`, what the rule keeps between steps beside its
        parameters, before the first one; None of a rule that keeps nothing. `num_examples` is the
        size of the training set, or None where it is not known.
      errors_first: whether a step had better have all errors before its first update, to be quick
        (`lrajax.steps.once_known`); it changes no number.
    """

    init: Callable[[PRNGKeyArray], Params]
    compute_targets: ComputeTargets
    calc_updates: Callable[[Params, Calculations], Params]
    predict: Callable[[Params, Array], Array]
    loss: Callable[[Array, Array], Array]
    network: Network | None = None
    init_state: Callable[[Params, int | None], PyTree] | None = None
    errors_first: bool = False
