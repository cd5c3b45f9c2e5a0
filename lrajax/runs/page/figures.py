"""The figures of a run report: each a function of the series to compare, giving a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files alone: no window, whatever the machine has

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from lrajax.runs.page.measures import Measures

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
DASHES = ("-", "--", ":", "-.")
SIZE = (4.5, 3.3)  # inches; the text stays legible on a phone
FILTERS = 32


class Series(NamedTuple):
    """One line of the figures: a setting with its seeds.

    Attributes:
      label: what the legend says.
      number: gives colour and dashes, the same in every figure.
      curves: metrics.jsonl by name, [n_epochs, n_seeds].
      seeds: of the runs.
      best_epochs: of every seed; empty if the run is not finished.
      start: measures before training, one a seed; empty if the run is not finished.
      selected: measures of the selected parameters, one a seed.
      filters: first-layer weights of the first seed, as `measures.filters` gives them.
      class_names: by label.
    """

    label: str
    number: int
    curves: Mapping[str, np.ndarray]
    seeds: Sequence[int]
    best_epochs: Sequence[int] = ()
    start: Sequence[Measures] = ()
    selected: Sequence[Measures] = ()
    filters: np.ndarray | None = None
    class_names: Sequence[str] = ()


def colour(one: Series) -> str:
    """The colour of a series in every figure."""
    return COLOURS[one.number % len(COLOURS)]


def dashes(one: Series) -> str:
    """The line style of a series: colours alone serve only so many."""
    return DASHES[one.number // len(COLOURS) % len(DASHES)]


def mean_and_spread(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and the sample's standard deviation over the seeds, 0 for one seed."""
    ddof = min(1, values.shape[axis] - 1)
    return values.mean(axis=axis), values.std(axis=axis, ddof=ddof)


def curve(series: Sequence[Series], name: str, label: str) -> Figure:
    """A metric over the epochs: mean over seeds, a band of ± one standard deviation."""
    figure, axes = _axes("epoch", label)
    for one in series:
        values = one.curves[name]
        epochs = np.arange(1, len(values) + 1)
        mean, spread = mean_and_spread(values, axis=1)
        axes.plot(epochs, mean, label=one.label, color=colour(one), linestyle=dashes(one))
        axes.fill_between(
            epochs, mean - spread, mean + spread, color=colour(one), alpha=0.2, linewidth=0
        )
        if name == "valid_error":
            selected = [(seed, epoch) for seed, epoch in enumerate(one.best_epochs) if epoch]
            for seed, epoch in selected:  # a run that diverged at once has none
                axes.plot(epoch, values[epoch - 1, seed], "o", markersize=4, color=colour(one))
    if name.endswith("_error"):
        # Close to logarithmic, but an error of 0 has a place too.
        axes.set_yscale("symlog", linthresh=1, linscale=0.3)
        axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1, 2, 5, 10, 20, 50, 100]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    _legend(axes, series)
    return figure


def by_layer(series: Sequence[Series], name: str, label: str, mark: float | None = None) -> Figure:
    """A measure by layer, before training (hollow, dotted) and of the selected parameters."""
    figure, axes = _axes("layer", label)
    for one in series:
        _layers(axes, one, one.start, name, mfc="none", alpha=0.5, linestyle=":")
        _layers(axes, one, one.selected, name, label=one.label, linestyle=dashes(one))
    if mark is not None:
        axes.axhline(mark, color="0.6", linewidth=1)
    axes.set_ylim(bottom=0)
    _legend(axes, series)
    return figure


def _layers(axes: Axes, one: Series, measures: Sequence[Measures], name: str, **look) -> None:
    mean, spread = mean_and_spread(np.array([getattr(m, name) for m in measures]), axis=0)
    numbers = np.arange(1, len(mean) + 1)
    axes.errorbar(numbers, mean, spread, marker="o", color=colour(one), **look)


def before_after(series: Sequence[Series]) -> Figure:
    """Total discrepancy and output loss, before training and of the selected parameters."""
    figure, axes = _axes("", "mean over examples")
    width = 0.8 / len(series)
    for i, one in enumerate(series):
        # Start and selected stand side by side, pair after pair.
        left = np.array([0, 2]) - 0.4 + width * (i + 0.5)
        for x, measures, filled in ((left, one.start, False), (left + 1, one.selected, True)):
            values = np.array([[m.discrepancy, m.output_loss] for m in measures])
            mean, spread = mean_and_spread(values, axis=0)
            look: dict[str, Any] = {"color": colour(one), "edgecolor": colour(one), "fill": filled}
            label = one.label if filled else None
            axes.bar(x, mean, width, yerr=spread, label=label, **look)
    axes.set_xticks(range(4), ["D(y, x)\nstart", "\nselected", "output loss\nstart", "\nselected"])
    _legend(axes, series)
    return figure


def filters(one: Series) -> Figure:
    """The first units' incoming weights as images, each scaled to its own largest weight."""
    figure, grid = plt.subplots(4, 8, figsize=SIZE, layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    shown = () if one.filters is None else one.filters[:FILTERS]
    for axes, image in zip(grid.flat, shown, strict=False):
        if image.ndim == 3 and image.shape[2] != 3:  # other channels than red, green and blue
            image = image.mean(axis=2)
        scale = np.abs(image).max() or 1
        if image.ndim == 3:  # with 0 as grey
            axes.imshow(0.5 + image / (2 * scale))
        else:
            axes.imshow(image, cmap="RdBu_r", vmin=-scale, vmax=scale)
    return figure


def confusion(one: Series) -> Figure:
    """Answers by label in % of the label's test examples, over all seeds."""
    counts = np.sum([m.confusion for m in one.selected], axis=0)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(SIZE[0], SIZE[0] * 0.9), layout="constrained")
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=10)  # the root shows rare mistakes
    axes.set(xlabel="answer", ylabel="label")
    if len(shares) > 20:
        return figure  # too many classes to write numbers
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(shares)), one.class_names or None)
    if max(map(len, one.class_names), default=0) > 2:
        axes.tick_params(labelsize=7)
        axes.tick_params("x", rotation=90)
    for (label, answer), share in np.ndenumerate(shares):
        if share:
            colour = "white" if share > 40 else "black"
            text = f"{share:.0f}" if share >= 10 else f"{share:.1f}"
            axes.text(answer, label, text, ha="center", va="center", color=colour, fontsize=8)
    return figure


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _legend(axes: Axes, series: Sequence[Series]) -> None:
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9)
