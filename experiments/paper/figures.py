"""The paper's figures from recorded results. Seeds are drawn as mean and range."""

import pathlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrajax.runs.records import NAMES, extent, optimizer_of

matplotlib.use("Agg")
plt.rcParams["svg.hashsalt"] = "lrajax"  # the same figure gives the same file

# Okabe and Ito's palette, told apart with any kind of colour blindness.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
BOX = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
TITLES = {
    "figure1": "angles to backprop, and discrepancy under LRA-E (Fashion-MNIST, 3 layers)",
    "figure2": "t-SNE of the topmost hidden layer, 5 layers, 2,000 test images of Fashion-MNIST",
    "figure3": "validation accuracy of DTP and DTP-σ from three initialisations (MNIST)",
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
        draw(left, record, "angle", NAMES[name], colour)
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
    """One picture a rule, with the accuracy of its nearest neighbours; numbers are the classes'."""
    canvas, axes = plt.subplots(2, 2, figsize=(9, 9), layout="constrained")
    for frame, (name, record) in zip(axes.flat, records.items(), strict=False):
        points, labels = np.array(record["final"]["tsne"]), np.array(record["final"]["labels"])
        frame.scatter(*points.T, c=labels, cmap="tab10", s=5, linewidths=0)
        # Ten colours cannot all be told apart by every eye, so each class has its number too.
        for label in np.unique(labels):
            middle = np.median(points[labels == label], axis=0)
            frame.text(*middle, label, weight="bold", ha="center", va="center", bbox=BOX)
        frame.set(xticks=[], yticks=[])
        frame.set_title(f"{NAMES[name]}: 10-NN accuracy {record['final']['knn_accuracy']:.1f} %")
    return canvas


def figure3(records: dict[str, dict]) -> Figure:
    """Accuracy over epochs, a frame a depth; dashed is DTP, solid DTP-σ."""
    depths, schemes = (sorted({name.split("-")[i] for name in records}) for i in (1, 2))
    canvas, axes = plt.subplots(
        1, len(depths), figsize=(11, 4.2), layout="constrained", sharey=True, squeeze=False
    )
    frames = dict(zip(depths, axes[0], strict=True))
    for name, record in records.items():
        algo, depth, scheme = name.split("-")
        accuracy = 100 - np.array(record["curves"]["valid_error"], float)
        style = "-" if algo == "dtp_sigma" else "--"
        colour = COLOURS[schemes.index(scheme)]
        band(frames[depth], accuracy, f"{NAMES[algo]}, {scheme}", colour, style)
    for depth, frame in frames.items():
        frame.set(title=f"{depth} hidden layers", xlabel="epoch")
        frame.legend(fontsize=8)
    axes[0, 0].set_ylabel("validation accuracy (%)")
    return canvas


def autoencoder(records: dict[str, dict]) -> Figure:
    """Test images, and below them what each autoencoder makes of them."""
    first = next(iter(records.values()))
    shape, count = first["settings"]["image_shape"], len(first["images"])
    rows = {"input": first["images"]}
    for record in records.values():
        settings = record["settings"]
        rows[f"{NAMES[settings['algo']]}\n{settings['output']}"] = record["reconstructions"]
    canvas, axes = plt.subplots(
        len(rows), count, figsize=(count, 1.1 * len(rows)), layout="constrained"
    )
    for frames, (label, images) in zip(axes, rows.items(), strict=True):
        for frame, image in zip(frames, images, strict=True):
            frame.imshow(np.reshape(image, shape), cmap="gray", vmin=0, vmax=255)
            frame.set(xticks=[], yticks=[])
        frames[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return canvas


FIGURES = {"figure1": figure1, "figure2": figure2, "figure3": figure3}


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
        elif name == "figure2":
            final = record["final"]
            text = (
                f"10-nearest-neighbour accuracy {final['knn_accuracy']:.2f} %, "
                f"silhouette {final['silhouette']:.3f}"
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
