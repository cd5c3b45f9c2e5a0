"""What a report has to show of runs: their rows, and series with what can be measured now."""

from collections.abc import Sequence
from typing import NamedTuple

from lrajax.data import Dataset
from lrajax.runs import tables
from lrajax.runs.page import measures
from lrajax.runs.page.figures import Series
from lrajax.runs.page.measures import Probe
from lrajax.runs.reading import Folder
from lrajax.runs.tables import Row

LINES = 12  # that an eye can follow; of more settings the best are drawn
NEEDS_DATA = "Angles, discrepancy, saturation, filters and confusion"


class Contents(NamedTuple):
    """What there is to show.

    Attributes:
      folders: of the runs.
      rows: the settings, folder by folder.
      series: of the settings that are drawn, in the same order.
      missing: what is left out, and why, a sentence each.
    """

    folders: Sequence[Folder]
    rows: Sequence[Row]
    series: Sequence[Series]
    missing: Sequence[str]


def gather(folders: Sequence[Folder], data_dir: str | None = None) -> Contents:
    """Reads, and measures what can be measured.

    Args:
      folders: of the runs.
      data_dir: where the data sets are, as in `data.load`; default: where the runs had them from.

    Raises:
      ValueError: a file of parameters is damaged.
    """
    rows = [row for folder in folders for row in folder.rows]
    labels = tables.labels(rows)
    ranks = tables.ranked(rows)
    others = [i for i in range(len(rows)) if i not in ranks]
    drawn = sorted([*ranks, *others][:LINES])
    sets = DataSets(data_dir)
    missing: dict[str, list[str]] = {}
    series, first = [], 0
    for folder in folders:
        of_folder = [i for i in drawn if first <= i < first + len(folder.rows)]
        first += len(folder.rows)
        try:
            probe = sets.probe(folder) if of_folder else None
        except LookupError as error:
            probe = None
            missing.setdefault(str(error), []).append(folder.name)
        series += [_series(folder, rows[i], labels[i], drawn.index(i), probe) for i in of_folder]
    sentences = [f"{', '.join(names)}: {reason}" for reason, names in missing.items()]
    if len(drawn) < len(rows):
        best = "the best by validation error" if ranks else "the first"
        sentences.append(f"Of {len(rows)} settings {len(drawn)} are drawn, {best}.")
    return Contents(folders, rows, series, sentences)


class DataSets:
    """Data sets, each looked for once."""

    def __init__(self, data_dir: str | None):
        """Looks for nothing yet."""
        self.data_dir = data_dir
        self.found: dict[tuple, Dataset | ValueError] = {}

    def probe(self, folder: Folder) -> Probe:
        """What measures a folder's runs.

        Raises:
          LookupError: they cannot be measured.
        """
        if folder.summary is None:
            raise LookupError(f"{NEEDS_DATA} are left out: the run is not finished.")
        if not (folder.path / "best_params.npz").exists():
            raise LookupError(f"{NEEDS_DATA} are left out: best_params.npz is not there.")
        settings = folder.settings
        recorded = folder.config.get("data_dir")
        which = (settings.dataset, settings.valid_size, settings.split_seed, recorded)
        if which not in self.found:
            try:
                self.found[which] = folder.dataset(self.data_dir)
            except ValueError as error:
                self.found[which] = error
        dataset = self.found[which]
        if isinstance(dataset, ValueError):
            raise LookupError(f"{NEEDS_DATA} are left out: {dataset}.")
        try:
            return Probe(settings, dataset)
        except ValueError as error:  # a module of one's own that is not there
            raise LookupError(f"{NEEDS_DATA} are left out: {error}.") from error


def _series(folder: Folder, row: Row, label: str, number: int, probe: Probe | None) -> Series:
    """One line of the figures; without a probe its curves alone."""
    curves = {name: curve[:, row.members] for name, curve in folder.curves.items()}
    if folder.summary is None:
        return Series(f"{label} (unfinished)", number, row, curves)
    bare = Series(
        label, number, row, curves, [folder.summary["best_epoch"][run] for run in row.members]
    )
    if probe is None:
        return bare
    values = folder.settings.swept(folder.settings.runs()[row.members[0]])
    params = [folder.params(run, probe.like) for run in row.members]
    return bare._replace(
        start=[probe.measure(probe.start(seed, values), values) for seed in row.seeds],
        selected=[probe.measure(one, values) for one in params],
        filters=measures.filters(params[0], probe.dataset.image_shape),
        class_names=probe.dataset.class_names,
    )
