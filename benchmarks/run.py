r"""Measures the speed of lrajax: writes benchmark.json and BENCHMARKS.md.

    python benchmarks/run.py                        everything that this machine can run
    python benchmarks/run.py --quick                a few points, to see that it runs
    python benchmarks/run.py --only=steps,roofline  some sections

README.md in this folder says what each section needs.
"""

import importlib
import pathlib
import sys

import report
from absl import app, flags, logging
from tqdm import tqdm

from lrajax.runs.commands import commandline

# A section is a module with a function `measure(options) -> Section`.
SECTIONS = {
    "steps": "steps",
    "compose": "compose",
    "convolutions": "convolutions",
    "torch": "torch_peer",
    "authors": "authors",
    "equil_prop": "equil_prop",
    "settling": "settling",
    "roofline": "roofline",
    "growth": "growth",
    "startup": "startup",
}

QUICK = flags.DEFINE_bool("quick", False, "few points and repeats: ends in about a minute")
OUT = commandline.define_path("out", "benchmarks/results", "folder for the two files", flags.FLAGS)
ONLY = flags.DEFINE_list("only", list(SECTIONS), "sections to run")
AUTHORS_SCRIPT = commandline.define_path(
    "authors_script", None, "mnist_torch.py of AnkurMali/LRA-E", flags.FLAGS
)
EP_REPOSITORY = commandline.define_path(
    "ep_repository", None, "folder of Laborieux-Axel/Equilibrium-Propagation", flags.FLAGS
)


def main(argv: list[str]) -> None:
    """Runs the sections in order, those of a run that was cut off left out; a report after each."""
    logging.set_verbosity(logging.ERROR)  # JAX's search for devices is no news
    unknown = [name for name in ONLY.value if name not in SECTIONS]
    if unknown or len(argv) > 1:
        sys.exit(
            f"run.py: unknown {(unknown or argv[1:])[0]!r}: sections are {', '.join(SECTIONS)}"
        )
    options = report.Options(QUICK.value, AUTHORS_SCRIPT.value, EP_REPOSITORY.value)
    folder = pathlib.Path(OUT.value)
    found = report.Report.begin(sys.argv[1:], options.quick, folder)
    there = found.sections.keys() | found.skipped
    bar = tqdm([name for name in ONLY.value if name not in there], unit="section")
    for name in bar:
        bar.set_description(name)
        try:
            section = importlib.import_module(SECTIONS[name]).measure(options)
        except report.Skipped as reason:
            found.skipped[name] = str(reason)
            print(f"\n{name}: skipped: {reason}")
        else:
            found.sections[name] = section
            report.show(name, section)
        found.write(folder)
    found.end(folder)


if __name__ == "__main__":
    commandline.on_any_terminal(lambda: app.run(main))
