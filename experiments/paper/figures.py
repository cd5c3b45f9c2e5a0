"""The paper's figures from recorded results. Seeds are drawn as mean and range."""

import pathlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from lrajax import RULES
from lrajax.runs.page.figures import COLOURS
from lrajax.runs.records import extent, optimizer_of
from paper import cells

matplotlib.use("Agg")
plt.rcParams["svg.hashsalt"] = "lrajax"  # the same figure gives the same file

BOX = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
TITLES = {
    "figure1": "Figure 1: angles to backprop, discrepancy under LRA-E (Fashion-MNIST, 3 layers)",
    "steps": "Figure 1 by the step: two readings of the scale of E (Fashion-MNIST, 3 layers)",
    "figure2": "Figure 2: t-SNE of the topmost hidden layer, 5 layers, 2,000 test images of "
    "Fashion-MNIST",
    "figure3": "Figure 3: validation accuracy of DTP and DTP-σ from three initialisations (MNIST)",
    "figure3_fashion": "Figure 3 on Fashion-MNIST",
    "sigma": "The σ of DTP-σ by layer, under two readings of equation 11 (MNIST, 8 layers)",
}
CELLS = {  # what a figure calls cells that are no rule's
    **{name: rule.title for name, rule in RULES.items()},
    "dtp_quiet": "DTP, σ = 0.01",
    "dtp_sigma_corrupted": 'DTP-σ, "corrupted"',
    "lra_e-small_e": "LRA-E, E's σ = 0.05",
}


def band(axes, curve: Any, label: str, colour: str, style: str = "-", first: int = 1) -> None:
    """Draws a curve [epochs] or [epochs, seeds] from an epoch on, as mean with the seeds' range."""
    values = np.asarray(curve, float)
    values = values.reshape(len(values), -1)
    epochs = first + np.arange(len(values))
    axes.plot(epochs, values.mean(axis=1), style, color=colour, label=label)
    axes.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.2, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def figure1(records: dict[str, dict]) -> Figure:
    """(a) angles of three rules; (b) LRA-E's discrepancy and output loss; from the start on."""
    canvas, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")

    def draw(frame, record, name, *how):
        band(frame, [record["final"]["start"][name], *record["curves"][name]], *how, first=0)

    for colour, (name, record) in zip(COLOURS, records.items(), strict=False):
        draw(left, record, "angle", CELLS[name], colour)
    left.axhline(90, color="grey", lw=0.8, ls=":")
    left.set(xlabel="epoch", ylabel="angle to backprop's update (degrees)", ylim=(0, 95))
    left.legend()
    if "lra_e" in records:
        record = records["lra_e"]
        draw(right, record, "discrepancy", "total discrepancy V_DD", COLOURS[1])
        draw(right, record, "output_loss", "output loss V_L", COLOURS[0], "--")
        right.set(xlabel="epoch", ylabel="validation loss (nats)", yscale="log")
        right.legend()
    return canvas


def figure2(records: dict[str, dict]) -> Figure:
    """The first seed of each rule, and all seeds' accuracy by neighbours; numbers are classes."""
    rows = -(-len(records) // 2)
    canvas, axes = plt.subplots(rows, 2, figsize=(9, 4.5 * rows), layout="constrained")
    for frame in axes.flat[len(records) :]:
        frame.axis("off")
    for frame, (name, record) in zip(axes.flat, records.items(), strict=False):
        final = record["final"]
        points, labels = np.array(final["tsne"][0]), np.array(final["labels"][0])
        frame.scatter(*points.T, c=labels, cmap="tab10", s=5, linewidths=0)
        # Ten colours cannot all be told apart by every eye, so each class has its number too.
        for label in np.unique(labels):
            middle = np.median(points[labels == label], axis=0)
            frame.text(*middle, label, weight="bold", ha="center", va="center", bbox=BOX)
        frame.set(xticks=[], yticks=[])
        frame.set_title(f"{CELLS[name]}: 10-NN accuracy {np.mean(final['knn_accuracy']):.1f} %")
    return canvas


def figure3(records: dict[str, dict]) -> Figure:
    """Accuracy over epochs, a frame a rule and depth, a colour an initialisation."""
    parts = [name.split("-") for name in records]
    algos, depths, schemes = (list(dict.fromkeys(column)) for column in zip(*parts, strict=True))
    algos.sort(key=list(CELLS).index)
    depths.sort()
    canvas, axes = plt.subplots(
        len(depths),
        len(algos),
        figsize=(11, 2.6 * len(depths)),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for record, (algo, depth, scheme) in zip(records.values(), parts, strict=True):
        accuracy = 100 - np.array(record["curves"]["valid_error"], float)
        frame = axes[depths.index(depth), algos.index(algo)]
        band(frame, accuracy, scheme, COLOURS[sorted(schemes).index(scheme)], "-")
        frame.set_title(f"{CELLS[algo]}, {depth} layers", fontsize=10)
    for frame in axes[:, 0]:
        frame.set_ylabel("validation accuracy (%)")
    for frame in axes[-1]:
        frame.set_xlabel("epoch")
    axes[0, -1].legend(fontsize=8, loc="lower right")
    return canvas


def by_step(record: dict, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [moments], and a measure of `probes.by_step` [moments, seeds, ...]."""
    steps = record["final"]["steps"]
    values = np.moveaxis(np.asarray(steps[name], float), 0, 1)
    return steps["every"] * np.arange(len(values)), values


def ribbon(axes, steps, values: np.ndarray, label: str, colour, style: str = "-") -> None:
    """Draws a measure [moments, seeds] as mean and range."""
    axes.plot(steps, values.mean(axis=1), style, color=colour, label=label, lw=1.2)
    axes.fill_between(steps, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)


def steps(records: dict[str, dict]) -> Figure:
    """(a) angles of the hidden layers, dotted with the output's; (b) discrepancy; (c) V_L."""
    canvas, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for colour, (name, record) in zip(COLOURS, records.items(), strict=False):
        ribbon(left, *by_step(record, "hidden_angle"), CELLS[name], colour)
        left.plot(*_mean(record, "angle"), ":", color=colour, lw=1)
        if name.startswith("lra_e"):
            at, internal = by_step(record, "internal")
            loss = by_step(record, "output_loss")[1]
            ribbon(middle, at, internal, f"{CELLS[name]}: internal", colour)
            middle.plot(at, (internal + loss).mean(axis=1), ":", color=colour, label="with V_L")
            ribbon(right, at, loss, CELLS[name], colour)
    left.axhline(90, color="grey", lw=0.8, ls=":")
    left.set(ylabel="angle to backprop's update (degrees)", ylim=(0, 120))
    left.set_title("hidden layers; dotted: with the output's", fontsize=9)
    middle.set(ylabel="discrepancy of an example (nats)", yscale="log")
    right.set(ylabel="V_L, output loss (nats)", yscale="log")
    for frame in (left, middle, right):
        frame.set(xlabel="step")
        frame.legend(fontsize=8)
    return canvas


def _mean(record: dict, name: str) -> tuple[np.ndarray, np.ndarray]:
    at, values = by_step(record, name)
    return at, values.mean(axis=1)


def sigma(records: dict[str, dict]) -> Figure:
    """|σ| of every decoder over the steps, a frame a reading; darker is lower."""
    canvas, axes = plt.subplots(
        1, len(records), figsize=(11, 4), layout="constrained", sharey=True, squeeze=False
    )
    for frame, (name, record) in zip(axes[0], sorted(records.items(), reverse=True), strict=True):
        at, values = by_step(record, "sigma")
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, values.shape[2]))
        for l, shade in enumerate(shades):
            ribbon(frame, at, values[..., l], f"decoder of layer {l + 2}", shade)
        frame.set(title=f"sigma_loss={name}", xlabel="step", yscale="log")
    axes[0, 0].set_ylabel("|σ|")
    axes[0, 0].legend(fontsize=8)
    return canvas


def headline(results: dict[str, dict[str, dict]]) -> Figure:
    """Tables 1 and 2 at a glance: test error by depth, ours beside the paper's single runs.

    What is at chance, the paper's equilibrium propagation at 8 layers, is beyond the axes.
    """
    canvas, frames = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    shown = (("table1", "mnist", "MNIST", 12), ("table2", "fashion_mnist", "Fashion-MNIST", 24))
    for frame, (target, dataset, title, highest) in zip(frames, shown, strict=True):
        for colour, (algo, printed) in zip(COLOURS, cells.PAPER[dataset].items(), strict=False):
            found = {depth: results[target].get(f"{algo}-{depth}") for depth in cells.DEPTHS}
            ours = {depth: record["summary"] for depth, record in found.items() if record}
            if not ours:
                continue
            means = [one["test_error_mean"] for one in ours.values()]
            stds = [one["test_error_std"] or 0 for one in ours.values()]
            frame.errorbar(
                list(ours), means, stds, fmt="o-", ms=4, capsize=3, color=colour, label=CELLS[algo]
            )
            frame.plot(cells.DEPTHS, [test for _, test in printed], "x", color=colour)
        frame.set(
            title=title,
            xlabel="hidden layers",
            xticks=cells.DEPTHS,
            yscale="log",
        )
        frame.set_ylim(top=highest)
        frame.yaxis.set_major_locator(LogLocator(10, (1, 1.2, 1.5, 2, 3, 5)))
        frame.yaxis.set_major_formatter("{x:g}")
        frame.yaxis.set_minor_locator(NullLocator())
    frames[0].set_ylabel("test error, %")
    frames[0].plot([], [], "x", color="grey", label="the paper's single run")
    canvas.legend(*frames[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return canvas


def autoencoder(records: dict[str, dict]) -> Figure:
    """Test images, and below them what each autoencoder makes of them."""
    first = next(iter(records.values()))
    shape, count = first["settings"]["image_shape"], len(first["images"])
    rows = {"input": first["images"]}
    for record in records.values():
        settings = record["settings"]
        rows[f"{RULES[settings['algo']].title}\n{settings['output']}"] = record["reconstructions"]
    canvas, axes = plt.subplots(
        len(rows), count, figsize=(count, 1.1 * len(rows)), layout="constrained"
    )
    for frames, (label, images) in zip(axes, rows.items(), strict=True):
        for frame, image in zip(frames, images, strict=True):
            frame.imshow(np.reshape(image, shape), cmap="gray", vmin=0, vmax=255)
            frame.set(xticks=[], yticks=[])
        frames[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return canvas


FIGURES = {
    "figure1": figure1,
    "steps": steps,
    "figure2": figure2,
    "figure3": figure3,
    "figure3_fashion": figure3,
    "sigma": sigma,
}


def numbers(name: str, results: dict[str, dict[str, dict]]) -> str:
    """What a picture shows, as a line of numbers for each of its cells."""
    lines = []
    for cell, record in results[name].items():
        curves = record["curves"]
        if name == "figure1":
            angle = (
                np.asarray(curves["angle"], float).reshape(len(curves["angle"]), -1).mean(axis=1)
            )
            text = f"angle to backprop {angle[0]:.1f}° after epoch 1, {angle[-1]:.1f}° at the end"
        elif name == "steps":
            angle = _mean(record, "hidden_angle")[1]
            text = f"hidden layers at {angle[0]:.1f}° at the start, {angle[-1]:.1f}° at the end"
        elif name == "sigma":
            lowest = by_step(record, "sigma")[1].mean(axis=1)[:, 0]
            text = (
                f"lowest |σ| {lowest[0]:.4f} at the start, {lowest.min():.4f} at least, "
                f"{lowest[-1]:.4f} at the end"
            )
        elif name == "figure2":
            text = (
                f"10-nearest-neighbour accuracy {np.mean(record['final']['knn_accuracy']):.2f} %, "
                f"silhouette {np.mean(record['final']['silhouette']):.3f}"
            )
        else:
            best = 100 - np.asarray(record["summary"]["valid_error"], float)
            text = f"best validation accuracy {best.mean():.2f} %"
        how = optimizer_of(record["settings"])
        lines.append(f"- {cell}: {text} ({how}, {extent(record)})")
    return "\n".join(lines) + "\n"


def save(canvas: Figure, path: pathlib.Path) -> None:
    """Writes PNG and SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path.with_suffix(".png"), dpi=150)
    canvas.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(canvas)
