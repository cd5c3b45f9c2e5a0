"""Trainings that no setting gives, beside a cell's own: from the same start, as many epochs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import lrajax
from lrajax import training
from lrajax.runs import records
from lrajax.runs.experiment import Experiment


def literal(experiment: Experiment) -> dict[str, list]:
    """Test errors in % of LRA-E whose output's error unit is taken as it is printed.

    Equation 2's -y/z is the derivative with respect to the softmax's activity z. "bare": it stands
    in for z - y, the derivative with respect to the pre-activity, as a local derivative of 1 has
    it; "derivative": times z (1 - z), the softmax's own derivative alone, unit by unit.
    """
    algo, _ = experiment.make({})
    units = {"bare": lambda y, z: y / z, "derivative": lambda y, z: y * (1 - z)}
    params = experiment.start().state.params
    found = {name: trained(experiment, _erring(algo, u), params) for name, u in units.items()}
    return {name: records.rounded(best.test_error) for name, best in found.items()}


def _erring(algo: lrajax.Algorithm, unit: Callable) -> lrajax.Algorithm:
    """The rule with -unit(y, z) as the output's error."""

    def compute_targets(params, batch, *, key=None):
        z = algo.predict(params, batch.x)
        # The rule takes z - label, so this label makes it what is wanted.
        label = z + unit(batch.y, jnp.maximum(z, jnp.finfo(z.dtype).tiny))
        return algo.compute_targets(params, batch._replace(y=label), key=key)

    return algo._replace(compute_targets=compute_targets)


def greedy(experiment: Experiment) -> dict[str, list]:
    """Test errors in % of layers trained one after another, by the number of trained ones.

    Each hidden layer is trained by backprop through a softmax of its own, on the layers below as
    they are by then, for as many epochs as the whole network has.
    """
    network = experiment.settings.make_network(*experiment.shape)
    *hidden, output = network.layers
    run, errors = experiment.start(), {}
    layers = run.state.params.forward
    for depth in range(1, len(hidden) + 1):
        algo = _topmost(network._replace(layers=(*hidden[:depth], output)))
        forward = (*layers[:depth], layers[-1])
        found = trained(experiment, algo, lrajax.Params(forward, ((),) * len(forward)))
        errors[str(depth)] = records.rounded(found.test_error)
        layers = (*found.params.forward[:depth], *layers[depth:])
    return errors


def _topmost(network: lrajax.Network) -> lrajax.Algorithm:
    """Backprop that moves the topmost hidden layer and the output alone."""
    algo = lrajax.backprop(network)

    def calc_updates(params, lambda_):
        updates = algo.calc_updates(params, lambda_)
        *frozen, last, output = updates.forward
        frozen = jax.tree.map(jnp.zeros_like, frozen)
        return updates._replace(forward=(*frozen, last, output))

    return algo._replace(calc_updates=calc_updates)


def trained(experiment: Experiment, algo: lrajax.Algorithm, params: lrajax.Params) -> training.Best:
    """The selection of the experiment's runs under another rule, with a leading axis of runs."""
    settings, sets = experiment.settings, experiment.sets
    _, optimizer = experiment.make({})
    step = training.make_train_step(algo, optimizer)
    epoch = training.make_epoch(algo, step, settings.batch_size, **experiment.scale)

    def of_run(params, seed):
        fixed = algo._replace(init=lambda key: params)
        run = training.init_run(fixed, optimizer, jax.random.key(seed), len(sets.train.y))
        run, _ = jax.lax.scan(lambda run, _: epoch(run, *sets), run, length=settings.epochs)
        return run.best

    return jax.jit(jax.vmap(of_run))(params, experiment.seeds)
