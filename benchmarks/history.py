"""Runs of the benchmark over time: a row each, and a picture of what their bounds came to."""

import json
import pathlib
from typing import Any

ROWS, PICTURE = "history.jsonl", "history.svg"


def add(folder: pathlib.Path, report: dict[str, Any]) -> None:
    """Adds a run's machine, versions, commit and bounds to the folder's history, and draws it.

    Args:
      folder: of the run's files.
      report: the run as `Report.as_json` has it.
    """
    bounds = {
        bound["bound"]: median(bound["measured"])
        for section in report["sections"].values()
        for bound in section["bounds"]
    }
    with open(folder / ROWS, "a", encoding="utf-8") as file:
        file.write(
            json.dumps({**report["environment"], "bounds": bounds}, ensure_ascii=False) + "\n"
        )
    draw(folder)


def median(measured: Any) -> Any:
    """The number that a bound is about."""
    return measured["median"] if isinstance(measured, dict) else measured


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The runs so far, the oldest first."""
    lines = (folder / ROWS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def draw(folder: pathlib.Path) -> None:
    """A panel a bound, a point a run, told apart by machine; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    runs = read(folder)
    texts = list(dict.fromkeys(text for run in runs for text in run["bounds"]))
    figure = Figure(figsize=(7, 1.1 * len(texts) + 0.8), layout="constrained")
    panels = figure.subplots(max(1, len(texts)), squeeze=False, sharex=True)[:, 0]
    for text, panel in zip(texts, panels, strict=False):
        panel.set_title(text, loc="left", fontsize=8)
        for machine in dict.fromkeys(run["device"] for run in runs):
            points = [
                (i, run["bounds"][text])
                for i, run in enumerate(runs)
                if run["device"] == machine and isinstance(run["bounds"].get(text), int | float)
            ]
            panel.plot(*zip(*points, strict=True) if points else ((), ()), "o-", label=machine)
        panel.margins(y=0.3)
    panels[-1].set_xticks(range(len(runs)), [run["date"].removesuffix(" UTC") for run in runs])
    panels[-1].tick_params("x", rotation=20, labelsize=7)
    panels[0].legend(fontsize=7)
    figure.savefig(folder / PICTURE, metadata={"Date": None})
