r"""Draws one run, a sweep, or several to compare: a page, its figures and its table.

    python experiments/report.py runs/lra_e                     to runs/lra_e/report/
    python experiments/report.py runs/lra_e runs/dfa --to=both  to both/
    python experiments/report.py runs                           all runs below runs/, to report/
    python experiments/report.py runs/lra_e --tensorboard=logs  TensorBoard's event files besides

A run is a folder that `train.py --out_dir` wrote. Beside index.html, which can be mailed alone, go
every figure as SVG and PNG and the table as table.csv, .md and .tex. The error curves are
metrics.jsonl's. Angles, discrepancy, saturation, filters and confusion matrix are computed now,
from best_params.npz and the data set; where that is not there, they are left out.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from lrajax.runs import placement, reading, trackers
from lrajax.runs.commands import commandline

try:
    from lrajax.runs.page import contents, page
    from lrajax.runs.page.figures import Series
except ModuleNotFoundError as error:
    sys.exit(
        f"{commandline.program()}: {error.name} is not installed: pip install matplotlib, or "
        "lrajax with its extra `plots`"
    )


def write_tensorboard(series: Sequence[Series], folder: pathlib.Path) -> None:
    """The curves as TensorBoard's event files, a folder for each run, setting and seed."""
    for one in series:
        for i, seed in enumerate(one.row.seeds):
            name = f"{one.label} {seed}".replace(", ", " ").replace(" ", "_")
            writer = trackers.tensorboard(folder, name, {**one.row.about, "seed": seed}, done=0)
            for epoch in range(len(one.curves["valid_error"])):
                values = {key: curve[epoch, i] for key, curve in one.curves.items()}
                finite = {key: value for key, value in values.items() if np.isfinite(value)}
                writer.write(epoch + 1, finite)
            writer.close()


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
    parser.add_argument(
        "out_dir", nargs="+", type=path, help="folder of a run, one above several, or a pattern"
    )
    parser.add_argument("--to", type=path, help="default: OUT_DIR/report; of several runs: report")
    parser.add_argument(
        "--data_dir", type=commandline.Path().parse, help="as in train; default: the run's own"
    )
    parser.add_argument("--tensorboard", type=path, help="folder for event files")
    flags = parser.parse_args(argv)
    commandline.ease_guards()
    try:
        placement.check_backend()
        trackers.check({"tensorboard": flags.tensorboard} if flags.tensorboard else {})
        found = reading.find(*flags.out_dir)
        folder = flags.to or (found[0] / "report" if len(found) == 1 else pathlib.Path("report"))
        shown = contents.gather(list(map(reading.Folder, found, names_of(found))), flags.data_dir)
        page.write(shown, folder)
        if flags.tensorboard:
            write_tensorboard(shown.series, flags.tensorboard)
    except ValueError as error:
        sys.exit(f"{commandline.program()}: {error}")
    for sentence in shown.missing:
        print(f"{commandline.program()}: {sentence}", file=sys.stderr)
    print(f"{folder / 'index.html'}")
