"""What a section hands back, and how it is written down: JSON for programs, Markdown for people."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import pickle
import platform
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import history
import jax
from timing import Spread

from lrajax import checkpoint
from lrajax.runs import records

PACKAGES = ("lrajax", "jax", "jaxlib", "optax", "numpy", "torch")


class Options(NamedTuple):
    """What the command line asks of the sections.

    Attributes:
      quick: few points, few repeats: to see that everything runs, not to quote.
      authors_script: path of the authors' PyTorch script, or None.
      ep_repository: folder of the public equilibrium propagation, or None.
    """

    quick: bool
    authors_script: str | None = None
    ep_repository: str | None = None

    @property
    def repeats(self) -> int:
        """Rounds of short measurements."""
        return 3 if self.quick else 21

    @property
    def steps(self) -> int:
        """Training steps in a timed call."""
        return 5 if self.quick else 300

    @property
    def few_repeats(self) -> int:
        """Rounds of measurements that take seconds each."""
        return 1 if self.quick else 5


class Table(NamedTuple):
    """Rows with the same columns; a cell is text, a number, a `Spread` or None."""

    name: str
    rows: Sequence[dict[str, Any]]
    note: str = ""


class Bound(NamedTuple):
    """A limit that a measurement must keep, and whether it does."""

    bound: str
    measured: Spread | float | str
    met: bool


class Section(NamedTuple):
    """Everything that one part of the benchmark found."""

    tables: Sequence[Table]
    bounds: Sequence[Bound] = ()


class Skipped(Exception):
    """Raised by a section that cannot run here; the message says why and how it could."""


def at_most(bound: str, measured: Spread, limit: float) -> Bound:
    """A bound that the median must not exceed."""
    return Bound(bound, measured, measured.median <= limit)


def at_least(bound: str, measured: Spread, limit: float) -> Bound:
    """A bound that the median must reach."""
    return Bound(bound, measured, measured.median >= limit)


def environment(argv: Sequence[str]) -> dict[str, Any]:
    """Device, versions, date and command; of paths in the command only the last part."""
    device = jax.devices()[0]
    return {
        "device": processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := version(name))},
        "commit": records.commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python benchmarks/run.py", *map(without_folders, argv)]),
    }


def same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two runs differ in nothing but when they began and what else the machine did."""
    changing = {"date", "load_average"}
    return all(old.get(name) == new[name] for name in new.keys() - changing)


def processor() -> str:
    """The CPU's name."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def without_folders(argument: str) -> str:
    """A flag with only the last part of a path that it holds."""
    name, equals, value = argument.partition("=")
    return f"{name}{equals}{pathlib.PurePath(value).name}" if equals else argument


UNFINISHED = "unfinished.pickle"


class Report:
    """Collects sections; `write` is called after each, so that a crash loses none."""

    def __init__(self, argv: Sequence[str], quick: bool):
        """Notes the environment."""
        self.environment = environment(argv)
        self.quick = quick
        self.sections: dict[str, Section] = {}
        self.skipped: dict[str, str] = {}

    @classmethod
    def begin(cls, argv: Sequence[str], quick: bool, folder: pathlib.Path) -> "Report":
        """A new report, or the one of the same command, code and machine that was cut off there."""
        new, kept = cls(argv, quick), folder / UNFINISHED
        if kept.exists():
            old = pickle.loads(kept.read_bytes())  # of this program's own
            if same(old.environment, new.environment):
                return old
        return new

    def write(self, folder: pathlib.Path) -> None:
        """Writes benchmark.json and BENCHMARKS.md, and what a run that is cut off goes on from."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmark.json").write_text(json.dumps(self.as_json(), indent=1) + "\n")
        (folder / "BENCHMARKS.md").write_text(self.as_markdown(), encoding="utf-8")
        checkpoint.write(folder / UNFINISHED, pickle.dumps(self))

    def end(self, folder: pathlib.Path) -> None:
        """Enters a whole run, if it is not a quick one, into the folder's history."""
        (folder / UNFINISHED).unlink(missing_ok=True)
        if not self.quick:
            history.add(folder, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The report as plain data; a `Spread` becomes a dictionary."""
        sections = {
            name: {
                "tables": {table.name: plain(table.rows) for table in section.tables},
                "bounds": [plain(bound._asdict()) for bound in section.bounds],
            }
            for name, section in self.sections.items()
        }
        return {
            "environment": self.environment,
            "quick": self.quick,
            "sections": sections,
            "skipped": self.skipped,
        }

    def as_markdown(self) -> str:
        """The report as Markdown tables."""
        parts = ["# Benchmarks", self.preamble()]
        bounds = [bound._asdict() for section in self.sections.values() for bound in section.bounds]
        if bounds:
            parts += ["## Bounds", markdown_table(bounds)]
        for name, section in self.sections.items():
            parts.append(f"## {name}")
            for table in section.tables:
                parts += [f"### {table.name}", markdown_table(table.rows), table.note]
        if self.skipped:
            parts += ["## Not measured", markdown_list(self.skipped)]
        if not self.quick:
            parts.append(f"Runs so far: [{history.ROWS}]({history.ROWS}), ![]({history.PICTURE})")
        return "\n\n".join(part for part in parts if part) + "\n"

    def preamble(self) -> str:
        """Where, when and how it was measured."""
        facts = dict(self.environment)
        facts["versions"] = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
        facts["command"] = f"`{facts['command']}`"
        how = "Medians of interleaved repeats, with the interquartile range in brackets."
        if self.quick:
            how += " **A quick run: too few repeats to quote.**"
        return f"{how}\n\n{markdown_list(facts)}"


def plain(value: Any) -> Any:
    """Named tuples as dictionaries, for JSON."""
    if isinstance(value, Spread):
        return value._asdict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def markdown_list(facts: dict[str, Any]) -> str:
    """`- name: fact` lines."""
    return "\n".join(f"- {name.replace('_', ' ')}: {fact}" for name, fact in facts.items())


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """A table whose columns are the keys of the rows."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    """A cell's text, numbers to three digits."""
    if isinstance(value, Spread):
        if value.repeats == 1:
            return number(value.median)
        return f"{number(value.median)} ({number(value.q1)} to {number(value.q3)})"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value)


def number(value: float) -> str:
    """Three significant digits, without an exponent for what fits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(name: str, section: Section) -> None:
    """Prints a section as it was found."""
    for table in section.tables:
        print(f"\n{name}: {table.name}\n{markdown_table(table.rows)}")
    if section.bounds:
        print(f"\n{markdown_table([bound._asdict() for bound in section.bounds])}")
    sys.stdout.flush()
