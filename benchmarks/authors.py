"""LRA-E against the script that the paper's authors published, AnkurMali/LRA-E.

Their class `MLP` is taken out of the script and its `compute_lra_updates` timed: one call is one
step, optimiser included: SGD, as in the paper, or AdamW, as in the script. Reading data, evaluating
and printing are left out.
"""

import pathlib

import numpy as np
import optax
import peers
import timing
import workload
from report import Options, Section, Table, at_least

LIMIT = 10.0
PART = 4  # a measured call is this part of an epoch
RATES = {"sgd": 1e-2, "adamw": 1e-3}  # the paper's and the script's
PILOT_STEPS = 10  # to choose the number of PyTorch's threads
HOW = (
    "give the authors' script by --authors_script=mnist_torch.py: "
    "https://github.com/AnkurMali/LRA-E has it in mnist/"
)
NOTE = __doc__.partition("\n\n")[2].strip() + (
    " Their update is V2 with a mean over the mini-batch, and so is ours here, under the same "
    "optimiser. Our epoch has shuffling, conversion from uint8 and metrics in it, theirs the "
    "updates alone; both are measured over a part of an epoch."
)


def measure(options: Options) -> Section:
    """Runs the section."""
    path = pathlib.Path(options.authors_script) if options.authors_script else None
    model_class = peers.model_of("--authors_script", path, HOW, "MLP", their_names)
    depths = workload.DEPTHS[:1] if options.quick else workload.DEPTHS
    rows = [row_of(model_class, depth, opt, options) for depth in depths for opt in RATES]
    bounds = [
        at_least(
            f"lra_e's epoch at {row['hidden layers']} layers under {row['optimiser']} "
            f"≥ {LIMIT:g} × as fast as the authors'",
            row["theirs over ours"],
            LIMIT,
        )
        for row in rows
    ]
    return Section([Table("authors", rows, NOTE)], bounds)


def their_names() -> dict:
    """The names that the script imports."""
    import torch

    return {
        "torch": torch,
        "nn": torch.nn,
        "init": torch.nn.init,
        "F": torch.nn.functional,
    }


def row_of(model_class: type, depth: int, opt: str, options: Options) -> dict:
    """Times of both at one depth, interleaved."""
    count = 50 if options.quick else workload.EPOCH_STEPS // PART
    calls = {
        "ours": our_epoch(depth, opt, count),
        "theirs": their_epoch(model_class, depth, opt, count),
    }
    threads = peers.choose_threads(their_epoch(model_class, depth, opt, PILOT_STEPS))
    seconds = timing.interleaved(calls, options.few_repeats)
    per_step, per_epoch = 1e6 / count, workload.EPOCH_STEPS / count
    return {
        "hidden layers": depth,
        "optimiser": opt,
        "our step (µs)": timing.spread(seconds["ours"], per_step),
        "their step (µs)": timing.spread(seconds["theirs"], per_step),
        "our epoch (s)": timing.spread(seconds["ours"], per_epoch),
        "their epoch (s)": timing.spread(seconds["theirs"], per_epoch),
        "torch threads": threads,
        "theirs over ours": timing.ratio(seconds["theirs"], seconds["ours"]),
    }


def our_epoch(depth: int, opt: str, count: int):
    """A call of lrajax's epoch."""
    rate = RATES[opt]
    optimizer = optax.sgd(rate) if opt == "sgd" else optax.adamw(rate, weight_decay=0.01)
    options = {"derivative": False, "reduction": "mean"}
    trainer = workload.rule("lra_e", workload.sizes(depth), optimizer, **options)
    examples = workload.random_examples(count * workload.BATCH)
    return workload.prepare(workload.epoch(trainer), trainer, examples).call


def their_epoch(model_class: type, depth: int, opt: str, count: int):
    """A call of their updates over as many mini-batches."""
    import torch

    with peers.quiet():
        model = model_class(list(workload.sizes(depth)))
    make = torch.optim.SGD if opt == "sgd" else torch.optim.AdamW
    optimizer = make(model.parameters(), lr=RATES[opt])
    batches = workload.random_batches(min(count, 300))
    x, y = (torch.tensor(np.asarray(a), device=model.device) for a in batches)

    def call():
        for i in range(count):
            model.compute_lra_updates(x[i % len(x)], y[i % len(y)], optimizer)
        if x.is_cuda:
            torch.cuda.synchronize()

    return call
