r"""Draws one run, or compares several: a self-contained HTML page and its figures as PNGs.

    python experiments/report.py runs/lra_e                     to runs/lra_e/report/
    python experiments/report.py runs/lra_e runs/dfa --to=both  to both/
    python experiments/report.py runs/lra_e --tensorboard=logs  TensorBoard's event files besides

A run is a folder that `train.py --out_dir` wrote. The error curves are metrics.jsonl's. Angles,
discrepancy, saturation, filters and confusion matrix are computed now, from best_params.npz.
"""

import argparse
import base64
import html
import io
import itertools
import json
import pathlib
import string
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lrajax import data
from lrajax.runs import page, records
from lrajax.runs.commands import commandline
from lrajax.runs.page import measures
from lrajax.runs.page.measures import Probe
from lrajax.runs.records import optimizer_of
from lrajax.runs.settings import Settings

try:
    from matplotlib.figure import Figure

    from lrajax.runs.page import figures
    from lrajax.runs.page.figures import Series
except ModuleNotFoundError as error:
    sys.exit(
        f"{commandline.program()}: {error.name} is not installed: pip install matplotlib, or "
        "lrajax with its extra `plots`"
    )

PAGE = string.Template(pathlib.Path(page.__file__).with_name("page.html").read_text())
CURVES = {
    "valid_error": "Validation error, %",
    "test_error": "Test error, %",
    "train_error": "Training error, %",
    "train_loss": "Training loss, nats",
}

# Caption, label of the axis, and a value to mark.
BY_LAYER = {
    "angles": ("Angle between the rule's update and backprop's", "angle, degrees", 90),
    "feedback_angles": ("Angle between E and Wᵀ", "angle, degrees", 90),
    "saturation": (
        "Activities where the activation's slope is below 0.1 (equil_prop: states at 0 or 1)",
        "saturated, %",
        None,
    ),
}


class Run:
    """A folder of a run, read."""

    def __init__(self, path: pathlib.Path, name: str):
        """Raises ValueError if the folder holds no run, or no epoch of one.

        Args:
          path: of the folder.
          name: what to call the run.
        """
        self.path, self.name = path, name
        try:
            config = records.read_record(path / "config.json", {"settings": records.SETTINGS})
            self.settings = Settings(**config["settings"])
            self.settings.check()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a run's folder ({error}): name one that `train --out_dir` wrote"
            ) from error
        try:
            content = (path / "metrics.jsonl").read_bytes()
            # The last line of a running or killed training may be cut.
            whole = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
            epochs = [json.loads(line) for line in whole]
            # One run gives numbers, several give lists; null is a number that does not exist.
            self.curves = {
                name: np.array([np.atleast_1d(epoch[name]) for epoch in epochs], float)
                for name in CURVES
            }
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path / 'metrics.jsonl'} is missing or damaged: delete summary.json there "
                "and give the train command again, which trains anew"
            ) from error
        if not epochs:
            raise ValueError(f"{path} has no finished epoch: wait for the first")
        summary = path / "summary.json"
        self.summary = records.read_record(summary, records.SUMMARY) if summary.exists() else None

    @property
    def params(self) -> pathlib.Path:
        """The file of the selected parameters."""
        return self.path / "best_params.npz"

    def groups(self) -> Iterator[tuple[str, dict[str, float], list[int]]]:
        """Label, swept values and run numbers of every setting: one, unless the run is a sweep."""
        numbered = enumerate(self.settings.runs())
        values_of = self.settings.swept
        ordered = sorted(numbered, key=lambda pair: tuple(values_of(pair[1]).values()))
        for values, group in itertools.groupby(ordered, key=lambda pair: values_of(pair[1])):
            swept = [f"{name}={value:g}" for name, value in values.items()]
            yield " ".join([self.name, *swept]), values, [number for number, _ in group]


def read_series(run: Run, data_dir: str | None, number: Iterator[int]) -> Iterator[Series]:
    """The lines that a run draws; without measures if it is not finished."""
    dataset = None
    if run.summary:
        dataset = data.load(
            run.settings.dataset,
            data_dir,
            valid_size=run.settings.valid_size,
            split_seed=run.settings.split_seed,
        )
    for label, values, members in run.groups():
        curves = {name: curve[:, members] for name, curve in run.curves.items()}
        seeds = [int(run.settings.runs()[member]["seed"]) for member in members]
        if dataset is None or run.summary is None:
            yield Series(f"{label} (unfinished)", next(number), curves, seeds)
            continue
        probe = Probe(run.settings, dataset, values)
        params = [probe.selected(run.params, member) for member in members]
        yield Series(
            label=label,
            number=next(number),
            curves=curves,
            seeds=seeds,
            best_epochs=[run.summary["best_epoch"][member] for member in members],
            start=[probe.measure(probe.start(seed)) for seed in seeds],
            selected=[probe.measure(one) for one in params],
            filters=measures.filters(params[0], dataset.image_shape),
            class_names=dataset.class_names,
        )


def draw(series: Sequence[Series]) -> Iterator[tuple[str, str, Figure]]:
    """File name, caption and figure of everything there is to show."""
    for name, label in CURVES.items():
        dots = "; dots: each seed's selected epoch" if name == "valid_error" else ""
        caption = f"{label}, mean and standard deviation over seeds{dots}"
        yield name, caption, figures.curve(series, name, label)
    measured = [one for one in series if one.selected]
    for name, (caption, label, mark) in BY_LAYER.items():
        shown = [one for one in measured if not np.isnan(getattr(one.selected[0], name)).all()]
        if shown:
            yield name, caption, figures.by_layer(shown, name, label, mark)
    if measured:
        caption = "Total discrepancy D(y, x) and output loss"
        yield "discrepancy", caption, figures.before_after(measured)
    for i, one in enumerate(measured, 1):
        if one.filters is not None:
            caption = f"{one.label}: first-layer filters, first seed"
            yield f"filters_{i}", caption, figures.filters(one)
        yield f"confusion_{i}", f"{one.label}: answers by label, %, test", figures.confusion(one)


def save(figure: Figure, path: pathlib.Path) -> str:
    """Writes a PNG and gives it as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    figures.plt.close(figure)
    path.write_bytes(buffer.getvalue())
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def rows(runs: Sequence[Run]) -> str:
    """The summary table's body, a row for each run."""
    return "\n".join(_row(run) for run in runs)


def _row(run: Run) -> str:
    settings = run.settings
    sizes = (size for size in (settings.hidden_layers, settings.width) if size is not None)
    network = f"{settings.network} {' × '.join(map(str, sizes))} {settings.activation}"
    epochs = f"{len(run.curves['train_loss'])} of {settings.epochs}"
    errors = [_error(run.summary, name) for name in ("train_error", "valid_error", "test_error")]
    optimizer = optimizer_of(vars(settings))
    what = [run.name, settings.algo, optimizer, settings.dataset, network]
    cells = [*what, len(settings.seeds), epochs, *errors]
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"


def _error(summary: dict[str, Any] | None, name: str) -> str:
    if summary is None:
        return "unfinished"
    mean, spread = (summary.get(f"{name}_{statistic}") for statistic in ("mean", "std"))
    if mean is None:
        return "sweep" if f"{name}_mean" not in summary else "diverged"
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}"


def write_page(runs: Sequence[Run], series: Sequence[Series], folder: pathlib.Path) -> None:
    """Draws everything into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    cards = []
    for name, caption, figure in draw(series):
        url, text = save(figure, folder / f"{name}.png"), html.escape(caption)
        cards.append(
            f'<figure id="{name}"><img src="{url}" alt="{text}">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    title = ", ".join(run.name for run in runs)
    text = PAGE.substitute(title=html.escape(title), rows=rows(runs), figures="\n".join(cards))
    (folder / "index.html").write_text(text)


def write_tensorboard(series: Sequence[Series], folder: pathlib.Path) -> None:
    """The curves as TensorBoard's event files, a folder for each run, setting and seed."""
    from tensorboardX import SummaryWriter  # lazy: few want it, and it takes a second

    for one in series:
        for i, seed in enumerate(one.seeds):
            with SummaryWriter(str(folder / f"{one.label} {seed}".replace(" ", "_"))) as writer:
                for name, curve in one.curves.items():
                    for epoch, value in enumerate(curve[:, i], 1):
                        writer.add_scalar(name, value, epoch)


def names_of(paths: Sequence[pathlib.Path]) -> list[str]:
    """What tells runs apart: the last parts of their paths, as many as it takes."""
    parts = [path.absolute().resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def path(text: str) -> pathlib.Path:
    """A path of the command line; a leading ~ is the home folder."""
    return pathlib.Path(commandline.Path().parse(text))


def run(argv: Sequence[str] | None = None) -> None:
    """Command line to page."""
    commandline.on_any_terminal(lambda: report(argv))


def report(argv: Sequence[str] | None) -> None:
    """The command itself."""
    parser = argparse.ArgumentParser(
        commandline.program(),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out_dir", nargs="+", type=path, help="folder of a run")
    parser.add_argument("--to", type=path, help="default: OUT_DIR/report; several: report")
    parser.add_argument("--data_dir", type=commandline.Path().parse, help="as in train")
    parser.add_argument("--tensorboard", type=path, help="folder for event files")
    flags = parser.parse_args(argv)
    alone = flags.out_dir[0] / "report" if len(flags.out_dir) == 1 else pathlib.Path("report")
    folder = flags.to or alone
    try:
        runs = list(map(Run, flags.out_dir, names_of(flags.out_dir)))
        number = itertools.count()
        series = [one for run in runs for one in read_series(run, flags.data_dir, number)]
        write_page(runs, series, folder)
        if flags.tensorboard:
            write_tensorboard(series, flags.tensorboard)
    except ValueError as error:
        sys.exit(f"{commandline.program()}: {error}")
    except OSError as error:
        sys.exit(f"{commandline.program()}: {error.filename} cannot be written ({error.strerror})")
    print(f"{folder / 'index.html'}")
