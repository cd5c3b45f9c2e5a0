"""The figures of a report: each a function of the series to compare, giving a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files alone: no window, whatever the machine has

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from lrajax.runs.page.measures import Measures
from lrajax.runs.tables import Row

# Okabe and Ito's colours, which the colour-blind can tell apart; not their yellow, which fades on
# white paper.
INK = "#222222"  # text and axes, and a line: the page puts its own colour in its place
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK]
DASHES = ("-", "--", ":", "-.")
STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "legend.labelcolor"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    "svg.hashsalt": "lrajax",  # the same figure gives the same file
}
SIZE = (4.5, 3.3)  # inches; the text stays legible on a phone
FILTERS = 32
WIDE = 5  # ratio of the largest to the smallest value from which an axis is logarithmic


class Series(NamedTuple):
    """One line of the figures: a setting with its seeds.

    Attributes:
      label: what the legend says.
      number: gives colour and dashes, the same in every figure.
      row: of the tables.
      curves: metrics.jsonl by name, [n_epochs, n_seeds].
      best_epochs: of every seed; empty if the run is not finished.
      start: measures before training, one a seed; empty where they could not be computed.
      selected: measures of the selected parameters, one a seed; empty likewise.
      filters: first-layer weights of the first seed, as `measures.filters` gives them.
      class_names: by label.
    """

    label: str
    number: int
    row: Row
    curves: Mapping[str, np.ndarray]
    best_epochs: Sequence[int | None] = ()
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
    drawn = []
    for one in series:
        values = one.curves[name]
        epochs = np.arange(1, len(values) + 1)
        mean, spread = mean_and_spread(values, axis=1)
        # One epoch is no line.
        marker = "o" if len(values) == 1 else None
        look: dict[str, Any] = {"color": colour(one), "linestyle": dashes(one), "marker": marker}
        axes.plot(epochs, mean, label=one.label, **look)
        axes.fill_between(
            epochs, mean - spread, mean + spread, color=colour(one), alpha=0.2, linewidth=0
        )
        drawn.append(mean)
        if name == "valid_error":
            selected = [(seed, epoch) for seed, epoch in enumerate(one.best_epochs) if epoch]
            for seed, epoch in selected:  # a run that diverged at once has none
                drawn.append(values[epoch - 1, [seed]])
                axes.plot(epoch, drawn[-1], "o", markersize=4, color=colour(one))
    _fit(axes, np.concatenate(drawn))
    _legend(figure, series)
    return figure


def _fit(axes: Axes, values: np.ndarray) -> None:
    """Fits the vertical axis to values >= 0: by logarithm where they span much, 0 included."""
    values = values[np.isfinite(values)]
    low, high = values.min(initial=np.inf, where=values > 0), values.max(initial=0)
    if high < WIDE * low:
        bottom = values.min(initial=high)
        room = 0.05 * (high - bottom) or 0.05 * high or 1
        axes.set_ylim(bottom - room, high + room)
        return
    zero = bool((values == 0).any())
    # Close to logarithmic, but an error of 0 has a place too.
    axes.set_yscale("symlog", linthresh=low, linscale=0.3)
    axes.set_ylim(-0.1 * low if zero else low / 1.15, high * 1.15)
    axes.yaxis.set_major_locator(FixedLocator([0, *_ticks(low, high)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers, and multiples of them where they are few."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    steps = (1, 2, 3, 5, 7) if len(powers) < 3 else (1, 2, 5) if len(powers) < 5 else (1,)
    return [step * power for power in powers for step in steps if low <= step * power <= high]


def by_layer(series: Sequence[Series], name: str, label: str, mark: float | None = None) -> Figure:
    """A measure by layer, before training (hollow, dotted) and of the selected parameters."""
    figure, axes = _axes("layer", label)
    for i, one in enumerate(series):
        aside = 0.04 * (i - (len(series) - 1) / 2)  # so that bars can be told apart
        _layers(axes, one, one.start, name, aside, mfc="none", alpha=0.5, linestyle=":")
        _layers(axes, one, one.selected, name, aside, label=one.label, linestyle=dashes(one))
    if mark is not None:
        axes.axhline(mark, color="0.6", linewidth=1)
    axes.set_ylim(bottom=0)
    _legend(figure, series)
    return figure


def _layers(
    axes: Axes, one: Series, measures: Sequence[Measures], name: str, aside: float, **look: Any
) -> None:
    mean, spread = mean_and_spread(np.array([getattr(m, name) for m in measures]), axis=0)
    numbers = np.arange(1, len(mean) + 1) + aside
    axes.errorbar(numbers, mean, spread, marker="o", markersize=4, color=colour(one), **look)


def before_after(series: Sequence[Series]) -> Figure:
    """Total discrepancy and output loss, before training (hollow) and as selected."""
    figure, axes = _axes("", "mean over examples")
    means = []
    for i, one in enumerate(series):
        x = np.arange(2) + 0.6 * ((i + 0.5) / len(series) - 0.5)
        looks: list[dict[str, Any]] = [{"mfc": "none"}, {"label": one.label}]
        for measures, look in zip((one.start, one.selected), looks, strict=True):
            values = np.array([[m.discrepancy, m.output_loss] for m in measures])
            mean, spread = mean_and_spread(values, axis=0)
            axes.errorbar(x, mean, spread, fmt="o", markersize=5, color=colour(one), **look)
            means.append(mean)
    axes.set_xticks([0, 1], ["total discrepancy D(y, x)", "output loss"])
    axes.set_xlim(-0.5, 1.5)
    _fit(axes, np.concatenate(means))
    _legend(figure, series)
    return figure


def over_values(rows: Sequence[Row], name: str, lines: Sequence[str]) -> Figure:
    """The validation error over a setting's values, a line each for what else differs.

    Args:
      rows: finished.
      name: of the setting.
      lines: what to call the line of each row.
    """
    figure, axes = _axes(name, "validation error, %")
    ends = []
    for i, line in enumerate(dict.fromkeys(lines)):
        of_line = [row for row, of in zip(rows, lines, strict=True) if of == line]
        x = [row.about[name] for row in of_line]
        mean, std = np.array([row.moments("valid_error") for row in of_line], float).T
        look: dict[str, Any] = {"marker": "o", "color": COLOURS[i % len(COLOURS)], "label": line}
        spread = np.nan_to_num(std)  # none of one seed
        axes.errorbar(x, mean, spread, capsize=3, **look)
        ends += [mean, mean + spread, np.where(spread < mean, mean - spread, mean)]
    values = sorted({row.about[name] for row in rows})
    if values[0] > 0 and values[-1] > WIDE * values[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    _fit(axes, np.concatenate(ends))
    _legend_below(figure, list(dict.fromkeys(lines)))
    return figure


def heat_map(rows: Sequence[Row], names: Sequence[str]) -> Figure:
    """The validation error over two settings' values, the best framed.

    Args:
      rows: finished, one at most for each pair of values.
      names: of the settings, that down the figure first.
    """
    down, across = (sorted({row.about[name] for row in rows}) for name in names)
    errors = np.full((len(down), len(across)), np.nan)
    places = [(down.index(row.about[names[0]]), across.index(row.about[names[1]])) for row in rows]
    for place, row in zip(places, rows, strict=True):
        errors[place] = np.array(row.moments("valid_error")[0], float)
    height = max(SIZE[1], 0.45 * len(down) + 1)
    figure, axes = plt.subplots(figsize=(SIZE[0], height), layout="constrained")
    # The root shows differences between good settings.
    norm = PowerNorm(0.5, np.nanmin(errors), np.nanmax(errors))
    axes.imshow(errors, cmap="Blues", norm=norm, aspect="auto")
    axes.set_facecolor("0.85")  # of settings without a result
    axes.set(xlabel=names[1], ylabel=names[0])
    axes.set_xticks(range(len(across)), [f"{value:g}" for value in across])
    axes.set_yticks(range(len(down)), [f"{value:g}" for value in down])
    for (y, x), row in zip(places, rows, strict=True):
        ink = "white" if norm(errors[y, x]) > 0.6 else "black"
        text = row.said("valid_error").replace(" ± ", "\n± ")
        axes.text(x, y, text, ha="center", va="center", color=ink, size=9)
    y, x = divmod(int(np.nanargmin(errors)), len(across))
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], lw=3))
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
    figure, axes = plt.subplots(figsize=(SIZE[0], SIZE[0] * 0.95), layout="constrained")
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=10)  # the root shows rare mistakes
    axes.set(xlabel="answer", ylabel="label")
    if len(shares) > 20:
        return figure  # too many classes to write numbers
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(shares)), one.class_names or None)
    if max(map(len, one.class_names), default=0) > 2:
        axes.tick_params(labelsize=8)
        axes.tick_params("x", rotation=90)
    for (label, answer), share in np.ndenumerate(shares):
        if share:
            ink = "white" if share > 40 else "black"
            text = f"{share:.0f}" if share >= 10 else f"{share:.1f}"
            axes.text(answer, label, text, ha="center", va="center", color=ink, fontsize=7)
    return figure


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _legend(figure: Figure, series: Sequence[Series]) -> None:
    _legend_below(figure, [one.label for one in series])


def _legend_below(figure: Figure, labels: Sequence[str]) -> None:
    """A legend under the axes, where there is something to tell apart, with room for it."""
    if len(labels) < 2:
        return
    columns = max(1, min(3, 70 // (max(map(len, labels)) + 6)))
    figure.set_figheight(figure.get_figheight() + 0.19 * -(-len(labels) // columns))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
