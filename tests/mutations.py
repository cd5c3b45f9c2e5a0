"""Breaks the rules, the losses and the training loop one at a time, and sees whether a test notices.

    python tests/mutations.py            all of them
    python tests/mutations.py lra_e      those of the files whose path contains a word

Each mutation is made in a copy of the package and of the tests, against which the tests named for
its file run until one fails. Ends with an error if fewer than 90 % are caught.
"""
# ruff: noqa: E501 - a mutation reads best on one line

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]

DRAWS = "test_properties.py::test_no_two_weights_are_drawn_alike"

# For each file the tests that should notice, quickest first, then (what is there, what to put).
MUTATIONS = {
    "lrajax/losses.py": (
        ["test_losses.py"],
        [
            (
                "value=lambda y, z: _per_example(-y * _log(z))",
                "value=lambda y, z: _per_example(y * _log(z))",
            ),
            ("error=lambda y, z: -y / _above_zero", "error=lambda y, z: y / _above_zero"),
            (
                "value=lambda y, z: _per_example((y - z) ** 2),\n    error=lambda y, z: -2",
                "value=lambda y, z: _per_example((y - z) ** 2) / 2,\n    error=lambda y, z: -2",
            ),
            ("error=lambda y, z: -2 * (y - z),", "error=lambda y, z: -(y - z),"),
            ("/ (1 + (y - z) ** 2)", "/ (1 + (y - z))"),
            ("jnp.log1p((y - z) ** 2)", "jnp.log((y - z) ** 2)"),
            ("error=lambda y, z: z - y", "error=lambda y, z: y - z"),
            (".sum(axis=1)", ".mean(axis=1)"),
        ],
    ),
    "lrajax/algorithms/_backprop.py": (
        ["test_backprop.py"],
        [
            (
                "network.layers[l], params.forward[l], z[l - 1], delta",
                "network.layers[l], params.forward[l], h[l - 1], delta * 2",
            ),
            (
                "vjp_post(network.layers[l - 1], h[l - 1], error)",
                "vjp_post(network.layers[l - 1], z[l - 1], error)",
            ),
            ("delta = layers.vjp_post(network.layers[l - 1], h[l - 1], error)", "delta = error"),
            ("for l in reversed(range(1,", "for l in (range(1,"),
        ],
    ),
    "lrajax/algorithms/_rfa.py": (
        ["test_rfa.py", DRAWS, "test_contract.py"],
        [
            (
                "feedback(network.layers[l], params.feedback[l], z[l - 1], delta)",
                "feedback(network.layers[l], params.feedback[l], z[l - 1], -delta)",
            ),
            (
                "feedback(network.layers[l], params.feedback[l], z[l - 1], delta)",
                "vjp_below(network.layers[l], params.forward[l], z[l - 1], delta)",
            ),
            ("delta = layers.vjp_post(network.layers[l - 1], h[l - 1], error)", "delta = error"),
            (
                "init_feedback(network.layers, e_key, e_init)",
                "init_feedback(network.layers, w_key, e_init)",
            ),
        ],
    ),
    "lrajax/algorithms/_dfa.py": (
        ["test_dfa.py", DRAWS, "test_contract.py"],
        [
            ("flat = output_delta.reshape", "flat = -output_delta.reshape"),
            (
                "carried, shortcuts[1:], params.feedback[1:], z[:-1]",
                "carried, shortcuts[1:], params.feedback[1:][::-1], z[:-1]",
            ),
            (
                "layers.feedback(shortcut, e, below, flat)",
                "2 * layers.feedback(shortcut, e, below, flat)",
            ),
            ("(*hidden, output_delta)", "(*hidden, 2 * output_delta)"),
        ],
    ),
    "lrajax/algorithms/_lra_e.py": (
        ["test_lra_e.py", "test_contract.py"],
        [
            ("layers.post(layer, h - displacement)", "layers.post(layer, h + displacement)"),
            ("layers.post(layer, h - displacement)", "layers.post(layer, z - displacement)"),
            ("z[l - 1], beta * displacement,", "z[l - 1], displacement,"),
            (
                "z[l - 1], errors[0])",
                "z[l - 1], errors[-1][:, : errors[0].shape[1]])",
            ),
            ("error_unit(target, z)", "error_unit(z, target)"),
            ("gamma * update", "-gamma * update"),
            ("gamma * update", "update"),
            ("if derivative else lambda_.errors", "if not derivative else lambda_.errors"),
            ("losses.LOCAL_LOSSES[local_loss]", 'losses.LOCAL_LOSSES["gaussian"]'),
        ],
    ),
    "lrajax/algorithms/_rec_lra.py": (
        ["test_rec_lra.py", "test_contract.py"],
        [
            ("range(stride, top, stride)", "range(1, top, stride)"),
            ("e, flat, error)", "e, flat, 2 * error)"),
            ("z[l - 1], beta * displacement,", "z[l - 1], displacement,"),
            ("delta = gamma * reduce_batch", "delta = reduce_batch"),
            ("delta = gamma * reduce_batch", "delta = -gamma * reduce_batch"),
            ("reduce_batch(below, reduction)", "below"),
            ("(lambda_.z[l - 1], lambda_", "(lambda_.h[l - 1], lambda_"),
        ],
    ),
    "lrajax/algorithms/_kolen_pollack.py": (
        ["test_kolen_pollack.py", "test_contract.py"],
        [
            ("update + decay * p", "update - decay * p"),
            ("update + decay * p", "update"),
            ("mirrored(params.feedback, forward)", "params.feedback"),
        ],
    ),
    "lrajax/algorithms/_sign_symmetric.py": (
        ["test_sign_symmetric.py", "test_contract.py"],
        [
            ("jnp.sign(w) * jnp.abs(magnitude)", "jnp.sign(w) * magnitude"),
            ("jnp.sign(w) * jnp.abs(magnitude)", "jnp.abs(magnitude)"),
            ("params._replace(feedback=feedback)", "params._replace(feedback=weights)"),
        ],
    ),
    "lrajax/algorithms/_predictive_coding.py": (
        ["test_predictive_coding.py", "test_contract.py"],
        [
            ("step_size * (e - feedback)", "step_size * (e + feedback)"),
            ("step_size * (e - feedback)", "step_size * (-feedback)"),
            ("step_size * (e - feedback)", "(e - feedback)"),
            ("fori_loop(0, steps,", "fori_loop(0, steps - 1,"),
            ("jnp.subtract, mu, x", "jnp.subtract, x, mu"),
            ("deltas[1:])", "(*errors[1:], deltas[-1]))"),
            ("lambda_._replace(z=lambda_.targets)", "lambda_"),
            ("errors_at(params, h[0], x, batch)", "errors_at(params, h[0], z[:-1], batch)"),
        ],
    ),
    "lrajax/compose.py": (
        ["test_compose.py"],
        [
            ("tuple(per_rule[i][l] for", "tuple(per_rule[-1][l] for"),
            ("e[i] if e else ()", "e[0] if e else ()"),
            ("rules[-1].predict(", "rules[0].predict("),
            ("loss=rules[-1].loss", "loss=rules[0].loss"),
            ("jax.random.split(key, len(distinct))", "[key] * len(distinct)"),
        ],
    ),
    "lrajax/algorithms/_dtp.py": (
        ["test_dtp.py", "test_contract.py"],
        [
            ("z[-2] - target_rate * gradient", "z[-2] + target_rate * gradient"),
            (
                "targets.insert(0, z[l - 1] - (of_z - of_y))",
                "targets.insert(0, z[l - 1] + (of_z - of_y))",
            ),
            ("(of_z - of_y)", "(-of_y)"),
            ("z[l - 1] + sigma * normal", "z[l - 1] + normal"),
            ("return sigma - loss / units", "return sigma + loss / units"),
            ("sigma = noise.below(sigma,", "noise.below(sigma,"),
            ("noise.below(sigma, targets[l - 1]", "noise.below(sigma, targets[l]"),
            ("gaussian.error(cycle.corrupted,", "gaussian.error(cycle.code[:, :1] * 0 +"),
            ('displacement + jnp.broadcast_to(decoder["b"], displacement.shape)', "displacement"),
            ('"b": delta.sum(axis=0)', '"b": delta.mean(axis=0)'),
            ("reversed(decoded), reversed(drawn)", "reversed(decoded), (drawn)"),
        ],
    ),
    "lrajax/algorithms/_equil_prop.py": (
        ["test_equil_prop.py", "test_contract.py"],
        [
            ("force[-1] += beta * (y - s[-1])", "force[-1] -= beta * (y - s[-1])"),
            ("force = [d - s_l for", "force = [d for"),
            ("nudged(-beta), nudged(beta), 2 * beta", "nudged(-beta), nudged(beta), beta"),
            ("nudged(sign * beta), sign * beta", "nudged(sign * beta), beta"),
            ("rate * (b - a) / distance", "rate * (a - b) / distance"),
            ("jnp.clip(a + step_size * f, 0, 1)", "(a + step_size * f)"),
            ("(i < steps) & (change > tolerance)", "(i < steps) & (change < tolerance)"),
            (
                "return relax(params, x, free, nudged_steps, y, beta)",
                "return relax(params, x, free, free_steps, y, beta)",
            ),
        ],
    ),
    "lrajax/training.py": (
        [
            "test_training.py",
            "test_faults.py::test_divergence_is_kept_at_its_first_epoch_and_never_selected",
        ],
        [
            (
                "optimizer.update(updates, state.opt_state, state.params, **more)",
                "optimizer.update(updates, state.opt_state)",
            ),
            ("state.step + 1, lambda_.state", "state.step, lambda_.state"),
            ("rows = jax.random.permutation(shuffle_key, size)", "rows = jnp.arange(size)"),
            ("state._replace(key=key),", "state,"),
            ("100 * wrong.mean()", "100 * (1 - wrong.mean())"),
            ("/ max_pixel", "/ 255"),
            ("a * whole + b * (size - whole)", "a * (size - whole) + b * whole"),
            ("jnp.arange(whole, size)", "jnp.arange(whole + 1, size)"),
            ("(mistakes(new.valid_error) < mis", "(mistakes(new.valid_error) <= mis"),
            ("(mistakes(new.valid_error) < mis", "(mistakes(new.test_error) < mis"),
            (" & all_finite((params, metrics))", ""),
            ("number = run.epoch + 1", "number = run.epoch"),
            ("(run.diverged_at == 0) & ~all", "~all"),
            ("measured(valid), measured(test))", "measured(test), measured(valid))"),
            ("params = to_predict(state)\n", "params = to_predict(run.state)\n"),
        ],
    ),
}


def caught(path, old, new, tests, copy):
    """Whether one of the tests fails once `old` is `new` in the copy's file."""
    file = copy / path
    source = file.read_text()
    assert source.count(old) == 1, f"{path}: {old!r} is there {source.count(old)} times"
    file.write_text(source.replace(old, new))
    try:
        return any(fails(copy, test) for test in tests)
    finally:
        file.write_text(source)


def fails(copy, test):
    """Whether a test file, or a test of one, fails against the copy."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider", f"tests/{test}"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
    )
    return done.returncode != 0


def main():
    words = sys.argv[1:] or [""]
    survivors, total = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        copy = pathlib.Path(temporary)
        for name in ("lrajax", "experiments", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        shutil.copy(ROOT / "setup.cfg", copy)
        for path, (tests, mutations) in MUTATIONS.items():
            if not any(word in path for word in words):
                continue
            assert not any(fails(copy, test) for test in tests), f"{tests} fail as they are"
            for old, new in mutations:
                total += 1
                if not caught(path, old, new, tests, copy):
                    survivors.append((path, old, new))
                    print(f"survives: {path}: {old!r} -> {new!r}", flush=True)
    print(f"{total - len(survivors)} of {total} mutations caught")
    sys.exit(10 * len(survivors) > total)


if __name__ == "__main__":
    main()
