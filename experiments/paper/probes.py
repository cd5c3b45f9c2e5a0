"""What the figures show beside the errors: measured after an epoch, or at the end.

A probe looks at parameters; it takes no part in training or selection.
"""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lrajax
from lrajax import diagnostics, training
from lrajax.data import Examples
from lrajax.runs import records
from lrajax.runs.experiment import Experiment
from lrajax.steps import forward
from paper import controls

BATCHES = 40  # mini-batches of 50 validation examples that an epoch's angles are averaged over

EVERY = 20  # steps from one look at a training to the next
LOOKS = 10  # mini-batches of validation examples that such a look averages over

Measure = Callable[[lrajax.Params], dict[str, Any]]  # of all runs' parameters, ready for JSON


class Probe(NamedTuple):
    """What a cell measures.

    Attributes:
      curves: makes of an experiment what is measured after every epoch.
      final: `(experiment, params, measure)`, what is measured at the end, given the selected
        parameters and the measure of the curves.
    """

    curves: Callable[[Experiment], Measure] = lambda experiment: lambda params: {}
    final: Callable[[Experiment, lrajax.Params, Measure], dict[str, Any]] = lambda *_: {}


def angles(experiment: Experiment) -> Measure:
    """Angles between the rule's update and backprop's, output loss and discrepancy."""
    settings, valid = experiment.settings, experiment.sets.valid
    algo, _ = experiment.make({})
    network = settings.make_network(*experiment.shape)
    backprop = lrajax.backprop(network, reduction="sum")
    size = min(settings.batch_size, len(valid.y))
    rows = jnp.arange(min(BATCHES, len(valid.y) // size) * size).reshape(-1, size)

    def of_batch(params, rows):
        batch = training.to_batch(valid, rows, **experiment.scale)
        lambda_ = algo.compute_targets(params, batch, key=jax.random.key(0))
        updates = algo.calc_updates(params, lambda_)
        reference = backprop.calc_updates(params, backprop.compute_targets(params, batch))
        return {
            "angle": diagnostics.update_angle(updates, reference),
            "layer_angles": diagnostics.layer_angles(updates, reference),
            "output_loss": algo.loss(batch.y, lambda_.z[-1]).mean(),
            "discrepancy": diagnostics.total_discrepancy(network, lambda_).mean(),
        }

    def probe(params):
        values = jax.lax.map(lambda rows: of_batch(params, rows), rows)
        return jax.tree.map(lambda v: v.mean(axis=0), values)

    over_runs = jax.jit(jax.vmap(probe))
    return lambda params: jax.tree.map(records.rounded, over_runs(params))


def by_step(experiment: Experiment) -> dict[str, Any]:
    """What the steps of a training do, every `EVERY` mini-batches from the start on.

    The experiment's runs from their start through as many epochs, shuffled in another order.

    Returns:
      Lists over the runs, then over the moments: "angle" to backprop's update over all layers,
      "hidden_angle" without the output's, which is 0 in every rule; "layer_angles" [n_layers];
      "output_loss" V_L, "internal" discrepancy (without V_L), per example; "feedback_angles"
      between E and Wᵀ [n_feedback]; of DTP also "sigma" [n_decoders], the standard deviation of the
      noise. All are means over validation examples.
    """
    settings, sets = experiment.settings, experiment.sets
    algo, optimizer = experiment.make({})
    network, size = settings.make_network(*experiment.shape), settings.batch_size
    backprop = lrajax.backprop(network, reduction="sum")
    train_step = training.make_train_step(algo, optimizer)
    seen = jnp.arange(LOOKS * size).reshape(LOOKS, size) % len(sets.valid.y)

    def of_batch(params, rows):
        batch = training.to_batch(sets.valid, rows, **experiment.scale)
        lambda_ = algo.compute_targets(params, batch, key=jax.random.key(0))
        updates = algo.calc_updates(params, lambda_)
        reference = backprop.calc_updates(params, backprop.compute_targets(params, batch))
        output_loss = algo.loss(batch.y, lambda_.z[-1]).mean()
        total = diagnostics.total_discrepancy(network, lambda_).mean()
        found = {
            "angle": diagnostics.update_angle(updates, reference),
            "hidden_angle": diagnostics.angle(updates.forward[:-1], reference.forward[:-1]),
            "layer_angles": diagnostics.layer_angles(updates, reference),
            "output_loss": output_loss,
            "internal": total - output_loss,
        }
        if settings.algo.startswith("dtp"):
            noise = [c.corrupted - z for c, z in zip(lambda_.aux, lambda_.z[:-2], strict=True)]
            found["sigma"] = jnp.stack([n.std() for n in noise])
        return found

    def look(params):
        values = jax.lax.map(lambda rows: of_batch(params, rows), seen)
        found = jax.tree.map(lambda v: v.mean(axis=0), values)
        return {**found, "feedback_angles": diagnostics.feedback_angles(params)}

    def one_step(state, rows):
        return train_step(state, training.to_batch(sets.train, rows, **experiment.scale))

    def stretch(state, rows):
        before = look(state.params)
        return jax.lax.scan(one_step, state, rows)[0], before

    def run(state):
        keys = jax.random.split(state.key, settings.epochs)
        orders = [jax.random.permutation(key, len(sets.train.y)) for key in keys]
        stretches = sum(map(len, orders)) // (EVERY * size)
        rows = jnp.concatenate(orders)[: stretches * EVERY * size]
        state, found = jax.lax.scan(stretch, state, rows.reshape(stretches, EVERY, size))
        return jax.tree.map(lambda v, last: jnp.append(v, last[None], 0), found, look(state.params))

    found = jax.jit(jax.vmap(run))(experiment.start().state)
    return {"every": EVERY, **jax.tree.map(lambda v: records.rounded(v, 5), found)}


def first(experiment: Experiment, examples: Examples, size: int, **scale: Any) -> lrajax.Batch:
    """The first examples of a set, as a batch; `scale` stands in for parts of the experiment's."""
    rows = jnp.arange(min(size, len(examples.y)))
    return training.to_batch(examples, rows, **{**experiment.scale, **scale})


def represent(
    algo: lrajax.Algorithm, batch: lrajax.Batch
) -> Callable[[lrajax.Params], tuple[jax.Array, ...]]:
    """A function of parameters: the hidden layers' activities on a batch."""
    return lambda params: algo.compute_targets(params, batch, key=jax.random.key(0)).z[:-1]


def picture(experiment: Experiment, params: lrajax.Params) -> dict[str, list]:
    """Each run's topmost hidden layer: its t-SNE, and how well it separates the classes.

    Returns:
      Lists over the runs: "knn_accuracy" in % of 2,000 test examples by their ten nearest of 10,000
      training examples, "silhouette" in [-1, 1], "tsne" [2,000, 2] and "labels" of the former.
    """
    from sklearn.manifold import TSNE  # lazy: importing it takes seconds
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import KNeighborsClassifier

    algo, _ = experiment.make({})
    train, _, test = experiment.sets

    def topmost(examples, size):
        activities = represent(algo, first(experiment, examples, size))
        z = np.asarray(jax.jit(jax.vmap(lambda params: activities(params)[-1]))(params))
        return z, np.asarray(examples.y)[: z.shape[1]]

    known, known_labels = topmost(train, 10_000)
    seen, labels = topmost(test, 2_000)
    found = collections.defaultdict(list)
    for near, far in zip(known, seen, strict=True):
        neighbours = KNeighborsClassifier(n_neighbors=10).fit(near, known_labels)
        points = TSNE(random_state=0, init="pca").fit_transform(far)
        found["knn_accuracy"].append(round(100 * neighbours.score(far, labels), 3))
        found["silhouette"].append(round(float(silhouette_score(far, labels)), 4))
        found["tsne"].append(np.round(points, 2).tolist())
        found["labels"].append(labels.tolist())
    return dict(found)


def sparsity(experiment: Experiment, params: lrajax.Params) -> list:
    """Hoyer's sparsity of each run's hidden layers on 2,000 test examples, [n_runs, n_hidden].

    (√n - ‖z‖₁ / ‖z‖₂) / (√n - 1), mean over the examples: 0 if all n activities of a layer are
    equal in size, 1 if one alone is not zero (Hoyer 2004).
    """
    algo, _ = experiment.make({})
    activities = represent(algo, first(experiment, experiment.sets.test, 2_000))

    def hoyer(z):
        root = jnp.sqrt(z.shape[1])
        quotient = jnp.abs(z).sum(axis=1) / jnp.linalg.norm(z, axis=1)
        return ((root - quotient) / (root - 1)).mean()

    over_runs = jax.jit(jax.vmap(lambda params: jnp.stack(list(map(hoyer, activities(params))))))
    return records.rounded(over_runs(params))


def alignment(experiment: Experiment) -> Measure:
    """Why a rule learns or fails to, on 1,000 validation examples.

    Returns:
      A measure. "angle" [n_runs]: degrees between the rule's update and backprop's over all layers;
      "layer_angles" [n_runs, n_layers]; "erring" [n_runs, n_layers]: the share of units with an
      error, in %; "mirror_angles" [n_runs, n_layers]: degrees between E and Wᵀ, None where E has
      not the shape of W.
    """
    backprop, (algo, _) = experiment.settings.make_reference(*experiment.shape), experiment.make({})
    batch, key = first(experiment, experiment.sets.valid, 1_000), jax.random.key(0)

    def of_run(params):
        errors = algo.compute_targets(params, batch, key=key).errors
        angles, overall = diagnostics.update_angles_to_backprop(
            backprop, algo, params, batch, key=key
        )
        erring = jnp.stack([100 * (error != 0).mean() for error in errors])
        mirrors = diagnostics.mirror_angles(params)
        return {
            "angle": overall,
            "layer_angles": angles,
            "erring": erring,
            "mirror_angles": mirrors,
        }

    over_runs = jax.jit(jax.vmap(of_run))
    return lambda params: jax.tree.map(records.rounded, over_runs(params))


def attacked(experiment: Experiment, params: lrajax.Params) -> dict[str, list]:
    """Error in % of each run on 2,000 test examples whose pixels were attacked, by attack and size.

    "none": as they are; "noise": Gaussian, of that standard deviation; "fgsm": one step of that
    size along the sign of the loss's gradient (Goodfellow et al. 2015); "pgd": ten steps of a
    quarter of it, within that distance (Madry et al. 2018, but from the example itself). Both
    follow the network's true gradient. Pixels stay in [0, 1], and are
    standardised after the attack where the network takes them so.
    """
    algo, _ = experiment.make({})
    network = experiment.settings.make_network(*experiment.shape)
    standardize = experiment.scale["standardize"] or (lambda x: x)
    x, y = first(experiment, experiment.sets.test, 2_000, standardize=None)

    def margin(params, x):
        # The loss is log(1 + e^margin): the same sign of the gradient, which would be rounded to 0
        # where the answer is confident.
        (*_, logits), _ = forward(network, params.forward, standardize(x))
        others = jnp.where(y == 1, -jnp.inf, logits)
        return jax.nn.logsumexp(others, axis=1) - (logits * y).sum(axis=1)

    def ascend(params, x_now, step, size):
        slope = jax.grad(lambda x: margin(params, x).sum())(x_now)
        return jnp.clip(jnp.clip(x_now + step * jnp.sign(slope), x - size, x + size), 0, 1)

    def noise(params, size):
        return jnp.clip(x + size * jax.random.normal(jax.random.key(0), x.shape), 0, 1)

    def fgsm(params, size):
        return ascend(params, x, size, size)

    def pgd(params, size):
        return jax.lax.fori_loop(0, 10, lambda _, x: ascend(params, x, size / 4, size), x)

    def error(attack, size):
        def of_run(params):
            answer = algo.predict(params, standardize(attack(params, size)))
            return training.measure(algo, y, answer).error

        return records.rounded(jax.jit(jax.vmap(of_run))(params))

    sizes = {noise: (0.1, 0.2, 0.4), fgsm: (0.01, 0.03, 0.1), pgd: (0.01, 0.03, 0.1)}
    return {
        "none": error(lambda params, size: x, 0),
        **{
            f"{attack.__name__} {size}": error(attack, size)
            for attack, every in sizes.items()
            for size in every
        },
    }


NOTHING = Probe()
LITERAL = Probe(final=lambda experiment, *_: {"literal": controls.literal(experiment)})
GREEDY = Probe(final=lambda experiment, *_: {"greedy": controls.greedy(experiment)})
STEPS = Probe(final=lambda experiment, *_: {"steps": by_step(experiment)})
ANGLES = Probe(
    angles, lambda experiment, _, measure: {"start": measure(experiment.start().state.params)}
)
PICTURE = Probe(final=lambda experiment, params, _: picture(experiment, params))
SPARSITY = Probe(final=lambda experiment, params, _: {"sparsity": sparsity(experiment, params)})
ATTACKS = Probe(final=lambda experiment, params, _: {"attacked": attacked(experiment, params)})
ALIGNMENT = Probe(alignment, lambda _, params, measure: measure(params))
