"""The page of a report, with its figures and tables as files beside it."""

import html
import io
import pathlib
import re
import string
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lrajax import checkpoint
from lrajax.runs import page, tables
from lrajax.runs.page import figures
from lrajax.runs.page.contents import Contents
from lrajax.runs.reading import Folder
from lrajax.runs.tables import Row

PAGE = string.Template(pathlib.Path(page.__file__).with_name("page.html").read_text("utf-8"))
DPI = 300  # of the PNGs, which are for slides and papers
CURVES = {
    "valid_error": "validation error, %",
    "test_error": "test error, %",
    "train_error": "training error, %",
    "train_loss": "training loss, nats",
}
# Caption, label of the axis, and a value to mark.
BY_LAYER = {
    "angles": (
        "Angle between the rule's update and backprop's, hidden layers",
        "angle to backprop's update, degrees",
        90,
    ),
    "feedback_angles": ("Angle between E and Wᵀ", "angle between E and Wᵀ, degrees", 90),
    "saturation": (
        "Activities where the activation's slope is below 0.1; of equil_prop, states at 0 or 1",
        "saturated activities, %",
        None,
    ),
}
TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "table.csv": tables.to_csv,
    "table.md": tables.to_markdown,
    "table.tex": tables.to_latex,
}


def write(contents: Contents, folder: pathlib.Path) -> None:
    """Writes the page, every figure as SVG and PNG, and the table as CSV, Markdown and LaTeX.

    Raises:
      OSError: the folder cannot be written; it names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, convert in TABLES.items():
        checkpoint.write(folder / name, convert(contents.rows).encode())
    with plt.rc_context(figures.STYLE):
        overview, others = (
            "\n".join(_card(*one, folder) for one in drawn)
            for drawn in (draw_overview(contents.rows), draw(contents))
        )
    rows = contents.rows
    text = PAGE.substitute(
        title=html.escape(_title(rows)),
        verdicts=_paragraphs(tables.verdicts(rows), "verdict"),
        caption=html.escape(tables.CAPTION.format(how=tables.common(rows))),
        table=_table(rows),
        overview=overview,
        missing=_paragraphs(contents.missing, "missing"),
        figures=others,
        folders="\n".join(map(_folder, contents.folders)),
    )
    checkpoint.write(folder / "index.html", text.encode())


def draw_overview(rows: Sequence[Row]) -> Iterator[tuple[str, str, Figure]]:
    """The errors over one or two settings that are numbers, where they make a line or a map."""
    rows = [rows[i] for i in sorted(tables.ranked(rows))]
    names = tables.telling(rows) if rows else []
    numbers = [name for name in names if _is_swept(rows, name)]
    lines = [tables.named(row, [name for name in names if name not in numbers]) for row in rows]
    points = {(line, *map(row.about.get, numbers)) for line, row in zip(lines, rows, strict=True)}
    if len(numbers) == 1 and len(points) == len(rows) > len({*lines}):
        caption = f"Validation error over {numbers[0]}, mean and standard deviation over seeds"
        yield "overview", caption, figures.over_values(rows, numbers[0], lines)
    # Of settings that change both values at once there is no map, but a diagonal.
    most = max((len({row.about[name] for row in rows}) for name in numbers), default=0)
    if len(numbers) == 2 and len({*lines}) == 1 and len(points) == len(rows) > most:
        caption = f"Validation error, %, over {numbers[0]} and {numbers[1]}; framed: the best"
        yield "overview", caption, figures.heat_map(rows, numbers)


def _is_swept(rows: Sequence[Row], name: str) -> bool:
    """Whether a setting is a number that every row has."""
    everywhere = all(row.about.get(name) is not None for row in rows)
    return everywhere and tables.is_number(rows, name) and name not in ("seeds", "epochs")


def draw(contents: Contents) -> Iterator[tuple[str, str, Figure]]:
    """File name, caption and figure of what there is to show of training and of parameters."""
    series = contents.series
    for name, label in CURVES.items():
        dots = "; dots: each seed's selected epoch" if name == "valid_error" else ""
        caption = f"{label[0].upper()}{label[1:]}: mean and standard deviation over seeds{dots}"
        yield name, caption, figures.curve(series, name, label)
    measured = [one for one in series if one.selected]
    for name, (caption, label, mark) in BY_LAYER.items():
        shown = [one for one in measured if _has(one, name)]
        if shown:
            yield name, caption, figures.by_layer(shown, name, label, mark)
    if measured:
        caption = "Total discrepancy and output loss; hollow: before training"
        yield "discrepancy", caption, figures.before_after(measured)
    best = [contents.rows[i] for i in tables.best(contents.rows)]
    for i, one in enumerate((one for one in measured if one.row in best), 1):
        if one.filters is not None:
            caption = f"{one.label}: first-layer filters, first seed"
            yield f"filters_{i}", caption, figures.filters(one)
        yield f"confusion_{i}", f"{one.label}: answers by label, % (test)", figures.confusion(one)


def _has(one: figures.Series, name: str) -> bool:
    """Whether a series has a measure; backprop's angle to itself is none."""
    itself = name == "angles" and one.row.about["algo"] == "backprop"
    return not itself and not np.isnan(getattr(one.selected[0], name)).all()


def _card(name: str, caption: str, figure: Figure, folder: pathlib.Path) -> str:
    """Writes a figure's files, and gives what the page shows of it."""
    drawn = {kind: _drawn(figure, kind) for kind in ("svg", "png")}
    plt.close(figure)
    for kind, content in drawn.items():
        checkpoint.write(folder / f"{name}.{kind}", content)
    text = html.escape(caption)
    files = ", ".join(f'<a href="{name}.{kind}">{kind}</a>' for kind in drawn)
    return (
        f'<figure id="{name}">{_inline(drawn["svg"].decode(), text)}'
        f"<figcaption>{text} <small>({files})</small></figcaption></figure>"
    )


def _drawn(figure: Figure, kind: str) -> bytes:
    """A figure as SVG, transparent and the same whenever it is drawn, or as PNG on white."""
    undated = {"metadata": dict.fromkeys(("Creator", "Date", "Format", "Type"))}
    buffer = io.BytesIO()
    how = undated if kind == "svg" else {"facecolor": "white"}
    figure.savefig(buffer, format=kind, dpi=DPI, **how)
    return buffer.getvalue()


def _inline(svg: str, about: str) -> str:
    """An SVG as a part of a page, whose colour of text it takes and whose width it fills."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", svg, count=5)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # Matplotlib counts anew in every figure
    svg = svg.replace(figures.INK, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{about}"', 1)


def _paragraphs(sentences: Sequence[str], kind: str) -> str:
    return "\n".join(f'<p class="{kind}">{html.escape(one)}</p>' for one in sentences)


def _title(rows: Sequence[Row]) -> str:
    rules = list(dict.fromkeys(tables.title(row.about["algo"]) for row in rows))
    what = ", ".join(rules) if len(rules) < 5 else f"{len(rules)} rules"
    return f"{what} on {', '.join(tables.datasets(rows))}"


def _table(rows: Sequence[Row]) -> str:
    """The table of settings, numbers to the right, the best marked."""
    names = tables.heads(rows)
    numbers = [tables.is_number(rows, name) for name in names] + [True] * len(tables.ERROR_HEADS)
    heads = [tables.HEADS.get(name, name) for name in names] + list(tables.ERROR_HEADS.values())
    lines = [_line("th", heads, numbers)]
    best = tables.chosen(rows)
    for i, row in enumerate(rows):
        cells = [tables.shown(row, name) for name in names]
        errors = [row.said(name) for name in tables.ERROR_HEADS]
        lines.append(_line("td", [*cells, *errors], numbers, "best" if i in best else ""))
    return "\n".join(("<table>", *lines, "</table>"))


def _line(tag: str, cells: Sequence[str], numbers: Sequence[bool], kind: str = "") -> str:
    kinds = ("number" if number else "text" for number in numbers)
    texts = (
        f'<{tag} class="{of}">{_breakable(cell)}</{tag}>'
        for cell, of in zip(cells, kinds, strict=True)
    )
    return "".join((f'<tr class="{kind}">', *texts, "</tr>"))


def _breakable(cell: str) -> str:
    """A cell that on a narrow screen breaks before its ± or after a _, nowhere else."""
    parts = re.split(r" (?=±)", html.escape(cell).replace("_", "_<wbr>"))
    return " ".join(f"<span>{part}</span>" for part in parts)


def _folder(folder: Folder) -> str:
    """Where a run comes from."""
    config = folder.config
    facts = {
        "folder": folder.path,
        "command": config.get("command"),
        "commit": config.get("commit"),
        "data": config.get("data_dir"),
        "epochs": f"{len(folder.seconds)} of {folder.settings.epochs}",
        "versions": ", ".join(f"{n} {v}" for n, v in config.get("versions", {}).items()),
        "device": config.get("device"),
    }
    lines = (
        f"<dt>{name}</dt><dd>{html.escape(str(fact))}</dd>" for name, fact in facts.items() if fact
    )
    return f"<dl>{''.join(lines)}</dl>"
