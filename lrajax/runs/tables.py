"""Runs as tables: a row a setting, the mean over its seeds, for screens, papers and programs."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import lrajax
from lrajax.runs import records
from lrajax.runs.settings import Settings

HEADS = {"algo": "rule", "opt": "optimiser", "dataset": "data"}
ERROR_HEADS = {"train_error": "train", "valid_error": "valid", "test_error": "test"}
CAPTION = "Errors in % at the epoch of lowest validation error, mean ± standard deviation: {how}"
COUNTED = ("folder", "seeds")  # what runs are, not how they were trained
WORDS = ("folder", "algo", "opt", "dataset")  # values that say themselves what they are
FIELDS = [field.name for field in dataclasses.fields(Settings)]
# What LaTeX takes for commands, and what its fonts for text do not have.
LATEX = {
    **{character: f"\\{character}" for character in "_%&#{}$"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "σ": r"$\sigma$",
    "–": "--",
}


class Row(NamedTuple):
    """A setting: runs that differ in nothing but their seeds.

    Attributes:
      about: the name of the runs' `folder`, their settings with swept values in their place,
        and the number of seeds.
      seeds: of the runs.
      members: the runs' numbers in the folder.
      errors: in % by name, one a run, None where it diverged at once; empty as long as the runs are
        not finished.
    """

    about: Mapping[str, Any]
    seeds: Sequence[int]
    members: Sequence[int]
    errors: Mapping[str, Sequence[float | None]]

    def moments(self, name: str) -> tuple[float | None, float | None]:
        """Mean and deviation of an error over the seeds, None where there is none."""
        return records.moments(self.errors[name]) if self.errors else (None, None)

    def said(self, name: str, sign: str = "±") -> str:
        """The same in words."""
        if not self.errors:
            return "unfinished"
        mean, std = self.moments(name)
        if mean is None:
            lost = list(self.errors[name]).count(None)
            return f"{lost} of {len(self.seeds)} diverged"
        return plus_minus(mean, std, sign)


def plus_minus(mean: float, std: float | None, sign: str = "±") -> str:
    """A mean with its deviation, if there is one."""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} {sign} {std:.2f}"


def rows(settings: Settings, summary: Mapping[str, Any] | None, folder: str = "") -> list[Row]:
    """The rows of a folder's runs, by ascending swept values.

    Args:
      settings: of the runs.
      summary: what summary.json says; None as long as there is none.
      folder: what to call it.
    """
    runs, found = settings.runs(), []
    for values, members in records.groups(runs):
        seeds = [int(runs[member]["seed"]) for member in members]
        errors = {
            name: [summary[name][member] for member in members]
            for name in records.ERRORS
            if summary
        }
        what = {"folder": folder, **about(settings, values), "seeds": len(seeds)}
        found.append(Row(what, seeds, members, errors))
    return found


def about(settings: Settings, values: Mapping[str, float]) -> dict[str, Any]:
    """The settings of a run by name, hyperparameters among them, swept values in their place."""
    others = ("seeds", "sweep", "hyperparameters")
    fields = {name: getattr(settings, name) for name in FIELDS if name not in others}
    return {
        name: ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        for name, value in {**fields, **settings.hyperparameters, **values}.items()
    }


def telling(rows: Sequence[Row]) -> list[str]:
    """The names of what tells the rows apart; of hyperparameters, within a rule."""
    names = dict.fromkeys(name for row in rows for name in row.about)
    found = [name for name in names if name not in COUNTED and _differs(rows, name)]
    apart = {tuple(row.about.get(name) for name in found) for row in rows}
    return found if len(apart) == len(rows) else ["folder", *found]


def _differs(rows: Sequence[Row], name: str) -> bool:
    """Whether a setting has several values; a hyperparameter, whether it has within a rule."""
    within = "" if name in FIELDS else "algo"  # the rule of any, or its own
    values = {(row.about.get(within), row.about[name]) for row in rows if name in row.about}
    return len(values) > len({rule for rule, _ in values})


def heads(rows: Sequence[Row]) -> list[str]:
    """The names of a table's columns before the errors."""
    names = telling(rows) or ["algo"]
    return [*names, "seeds"] if _differs(rows, "seeds") else names


def labels(rows: Sequence[Row]) -> list[str]:
    """What to call each row: by its rule, where that is enough."""
    names = telling(rows) or ["algo"]
    if len({row.about["algo"] for row in rows}) == len(rows):
        names = ["algo"]
    return [named(row, names) for row in rows]


def named(row: Row, names: Sequence[str]) -> str:
    """Some of the settings, in a line."""
    parts = {name: shown(row, name) for name in names if name in row.about}
    return ", ".join(part if name in WORDS else f"{name} {part}" for name, part in parts.items())


def shown(row: Row, name: str) -> str:
    """One of the settings in words; a rule by its title."""
    value = row.about.get(name)
    if name == "algo":
        return title(str(value))
    if value is None or value == "":
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def title(algo: str) -> str:
    """What a rule is called in tables and legends."""
    return lrajax.RULES[algo].title if algo in lrajax.RULES else algo


def common(rows: Sequence[Row]) -> str:
    """What all rows share, in a line."""
    first = rows[0].about
    sizes = [str(first[name]) for name in ("hidden_layers", "width") if first[name] is not None]
    parts = {
        ("algo",): title(first["algo"]),
        ("opt", "schedule", "weight_decay"): records.optimizer_of(first),
        ("lr",): f"lr {first['lr']:g}",
        ("dataset",): first["dataset"],
        ("network", "hidden_layers", "width", "activation"): " ".join(
            (first["network"], " × ".join(sizes), first["activation"])
        ),
        ("epochs",): f"{first['epochs']} epochs",
        ("seeds",): records.seeds_in_words(first["seeds"]),
    }
    apart = {*heads(rows)} if len(rows) > 1 else set()
    return ", ".join(part for names, part in parts.items() if not apart & {*names})


def ranked(rows: Sequence[Row], dataset: str | None = None) -> list[int]:
    """The numbers of the rows that have a result, the lowest mean validation error first.

    Args:
      rows: to rank.
      dataset: the only one to look at; None for all.
    """
    errors = {}
    for i, row in enumerate(rows):
        error, _ = row.moments("valid_error")
        if error is not None and dataset in (None, row.about["dataset"]):
            errors[i] = error
    return sorted(errors, key=errors.__getitem__)


def datasets(rows: Sequence[Row]) -> list[str]:
    """The data sets of the rows: what is compared with each other."""
    return list(dict.fromkeys(row.about["dataset"] for row in rows))


def best(rows: Sequence[Row]) -> list[int]:
    """The number of the row that is best on each data set, by validation error."""
    return [i for dataset in datasets(rows) for i in ranked(rows, dataset)[:1]]


def chosen(rows: Sequence[Row]) -> list[int]:
    """The same, where there was a choice."""
    return [i for i in best(rows) if len(ranked(rows, rows[i].about["dataset"])) > 1]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Which of several settings is best, and by how much: a sentence for each data set."""
    names, several = labels(rows), len(datasets(rows)) > 1
    found = []
    for dataset in datasets(rows):
        if len(ranks := ranked(rows, dataset)) > 1:
            first, second = (rows[i] for i in ranks[:2])
            found.append(
                f"Best by validation error{f' on {dataset}' if several else ''}: "
                f"{names[ranks[0]]}, with {first.said('valid_error')} % (test: "
                f"{first.said('test_error')} %), {_lead(first, second)} ahead of "
                f"{names[ranks[1]]}."
            )
    return found


def _lead(first: Row, second: Row) -> str:
    """By how much a row has the lower validation error: seed by seed, where seeds are shared."""
    (low, _), (high, _) = (row.moments("valid_error") for row in (first, second))
    assert low is not None  # what is ranked has a mean
    assert high is not None
    if first.seeds != second.seeds or len(first.seeds) == 1:
        return f"{high - low:.2f} points"
    errors = (np.array(row.errors["valid_error"], float) for row in (second, first))
    mean, std = records.moments(np.subtract(*errors).tolist())
    assert mean is not None
    return f"{plus_minus(mean, std)} points (seed by seed)"


def of_result(settings: Settings, result: Mapping[str, Any]) -> str:
    """What the terminal shows of a result: a line a seed, or of a sweep a line a setting."""
    found = rows(settings, result)
    if len(found) == 1:
        return records.table(result)
    lines = [[*heads(found), *(f"{head} %" for head in ERROR_HEADS.values())]]
    for row, mark in zip(found, _marks(found, "  best"), strict=True):
        errors = [row.said(name) for name in ERROR_HEADS]
        lines.append([*(shown(row, name) for name in lines[0][: -len(errors)]), *errors, mark])
    lines[0].append("")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = (
        "  ".join(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False))
        + line[-1]
        for line in lines
    )
    return "\n".join((*table, *verdicts(found)))


def _marks(rows: Sequence[Row], mark: str) -> list[str]:
    """The mark for the best rows, where there was a choice, and nothing for the others."""
    marked = chosen(rows)
    return [mark if i in marked else "" for i in range(len(rows))]


def is_number(rows: Sequence[Row], name: str) -> bool:
    """Whether a column has numbers, which stand right."""
    values = [row.about.get(name) for row in rows]
    return all(isinstance(v, int | float | None) and not isinstance(v, bool) for v in values)


def to_csv(rows: Sequence[Row]) -> str:
    """A line a setting with all that is known of it, numbers in full."""
    names = dict.fromkeys(name for row in rows for name in row.about)
    file = io.StringIO()
    statistics = [f"{name}_{what}" for name in records.ERRORS for what in ("mean", "std")]
    writer = csv.DictWriter(file, [*names, *statistics, "best"], lineterminator="\n")
    writer.writeheader()
    for row, mark in zip(rows, _marks(rows, "yes"), strict=True):
        moments = [moment for name in records.ERRORS for moment in row.moments(name)]
        writer.writerow({**row.about, **dict(zip(statistics, moments, strict=True)), "best": mark})
    return file.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """A table of GitHub's kind; the best by validation error is bold."""
    names = heads(rows)
    head = [*(HEADS.get(name, name) for name in names), *(f"{h} %" for h in ERROR_HEADS.values())]
    right = [*(is_number(rows, name) for name in names), True, True, True]
    lines = []
    for row, bold in zip(rows, _marks(rows, "**"), strict=True):
        errors = [f"{bold}{row.said(name)}{bold}" for name in ERROR_HEADS]
        lines.append([*(shown(row, name).replace("|", r"\|") for name in names), *errors])
    return markdown(head, lines, right)


def markdown(
    head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool] | None = None
) -> str:
    """A table in Markdown; `right` says which columns stand right, None that none does."""
    rule = ["---:" if stands_right else "---" for stands_right in right or [False] * len(head)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


def to_latex(rows: Sequence[Row]) -> str:
    """A tabular with the rules of booktabs; the best by validation error is bold."""
    names = heads(rows)
    columns = "".join("r" if is_number(rows, name) else "l" for name in names) + "r" * 3
    head = [*(HEADS.get(name, name) for name in names), *ERROR_HEADS.values()]
    lines = [" & ".join(map(_latex, head))]
    for row, bold in zip(rows, _marks(rows, r"\boldmath\bfseries "), strict=True):
        errors = [_latex_error(row, name, bold) for name in ERROR_HEADS]
        lines.append(" & ".join((*(_latex(shown(row, name)) for name in names), *errors)))
    top, *body = (f"{line} \\\\\n" for line in lines)
    return (
        f"% {CAPTION.format(how=common(rows))}\n% \\usepackage{{booktabs}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{top}\\midrule\n{''.join(body)}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _latex_error(row: Row, name: str, bold: str) -> str:
    said = row.said(name, r"\pm")
    return said if row.moments(name)[0] is None else f"{bold}${said}$"


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
