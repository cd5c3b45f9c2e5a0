"""The folder of a run, `--out_dir`: config.json, metrics.jsonl, summary.json, best_params.npz.

There are checkpoints too, so that the same command goes on where it was left, and one with more
epochs where the last one ended; and a lock, so that no two processes write there.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable
from typing import IO, Any

import lrajax
from lrajax import checkpoint
from lrajax.base import PyTree
from lrajax.runs import records
from lrajax.runs.experiment import Epoch
from lrajax.runs.settings import Settings
from lrajax.training import Run


class InUseError(ValueError):
    """Another process is at work in the folder."""


def lock(folder: pathlib.Path) -> IO:
    """Takes a folder as long as the file that is returned is open; even kill -9 closes it.

    Raises:
      InUseError: another process has it.
    """
    file = open(folder / ".lock", "a")  # noqa: SIM115 - held as long as the work
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InUseError(
            f"out_dir={folder} is in use by another process: wait for it, or choose another folder"
        ) from None
    return file


class RunFolder:
    """Keeps a run's files whole, whatever happens to the process or to the disk.

    Attributes:
      path: the folder.
      summary: the result of this very run, if the folder holds it; None if there is work to do.
      error: why the latest writing failed, None if it did not. What could not be written is tried
        again with what comes next.
    """

    def __init__(self, path: str, settings: Settings, say: Callable[[str], None]):
        """Looks without touching.

        Args:
          path: need not exist; a leading ~ is the home folder.
          settings: of the run.
          say: tells the user, in a line.

        Raises:
          ValueError: another run is there, or one that this one does not continue.
        """
        self.path = pathlib.Path(os.path.expanduser(path))
        self.summary: dict[str, Any] | None = None
        self.error: OSError | None = None
        self._config = records.config(settings)
        self._epochs = settings.epochs
        self._say = say
        self._metrics = self.path / "metrics.jsonl"
        self._size = 0  # of metrics.jsonl, in whole lines
        self._pending = b""  # lines that are not there yet
        with self._refusing():
            self._check_same()

    def open(self, **origin: Any) -> None:
        """Takes the folder, making it if need be.

        Args:
          **origin: goes into config.json beside the settings: the command, where the data is.

        Raises:
          InUseError: another process is at work in it.
          ValueError: it cannot be written.
        """
        self._origin = origin
        with self._refusing():
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path)
            self._check_same()  # whoever had the lock may have begun a run, or ended this one
            self._take_over()
            self._metrics.touch()

    def close(self) -> None:
        """Gives the folder free; the end of the process does so too."""
        self._lock.close()

    def resume(self, like: Run) -> tuple[int, Run | None]:
        """Goes back to the newest checkpoint that is whole and that metrics.jsonl reaches.

        Args:
          like: the run's shapes, `jax.eval_shape`'s.

        Returns:
          Its epoch and the run on the host; 0 and None where the run begins.

        Raises:
          ValueError: a checkpoint that this program cannot use, or files that cannot be read.
        """
        with self._refusing():
            lines = _whole_lines(self._metrics.read_bytes())
            step, run, passed_over = checkpoint.restore(self.path, like, last=len(lines))
            self._size = len(b"".join(lines[:step]))
            with open(self._metrics, "r+b") as file:
                file.truncate(self._size)
            for reason in passed_over:
                self._say(f"{reason}: passed over")
            if step or passed_over:
                self._say(f"{self.path}: goes on after epoch {step} of {self._epochs}")
            if step:
                self._note_versions(step)
        return step, run

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one an epoch, those still to be written included."""
        written = self._metrics.read_bytes()[: self._size]
        return [json.loads(line) for line in _whole_lines(written + self._pending)]

    def write_epoch(self, epoch: Epoch, run: PyTree | None, **more: Any) -> None:
        """Appends a line to metrics.jsonl and, given the run on the host, writes a checkpoint.

        Args:
          epoch: what the line says.
          run: on the host, or None.
          more: goes into the line too.
        """
        line = {**records.epoch_line(epoch), **more}
        self._pending += (json.dumps(line) + "\n").encode()
        with self._remembering():
            self._write_pending(flush=run is not None)
            if run is not None:
                checkpoint.save(self.path, epoch.number, run)

    def write_result(self, result: dict[str, Any], best_params: lrajax.Params) -> None:
        """Writes best_params.npz, then summary.json, whose presence says that the run is done."""
        with self._remembering():
            self._write_pending(flush=True)
            checkpoint.write(self.path / "best_params.npz", checkpoint.to_npz(best_params))
            records.write_json(self.path / "summary.json", result)
            # The last one stays: a command with more epochs goes on from there.
            checkpoint.remove(self.path, except_for=checkpoint.steps(self.path)[-1:])

    def _write_pending(self, flush: bool) -> None:
        # "r+b" never makes a new file: lines must not begin in the middle of a run.
        with open(self._metrics, "r+b") as file:
            file.seek(self._size)
            file.write(self._pending)
            file.truncate()
            if flush:
                checkpoint.flush(file)
        self._size += len(self._pending)
        self._pending = b""

    def _check_same(self) -> None:
        config = self.path / "config.json"
        if not config.exists():
            strangers = [name for name in _RESULTS if (self.path / name).exists()]
            if strangers:
                raise ValueError(
                    f"out_dir={self.path} holds {strangers[0]} of something else: "
                    "choose another folder"
                )
            return
        theirs, mine = _settings_in(config), self._config["settings"]
        names = records.differing(theirs, mine)
        fits = {"seeds": set(theirs["seeds"]) < set(mine["seeds"]), "epochs": True}
        if wrong := [name for name in names if not fits.get(name)]:
            raise ValueError(
                f"out_dir={self.path} already holds a different run ({', '.join(wrong)} differ): "
                "choose another folder, or delete that one"
            )
        finished = self.path / "summary.json"
        summary = records.read_record(finished, records.SUMMARY) if finished.exists() else None
        if summary and (not names or None not in summary["diverged_at"]):
            self.summary = summary
        elif "epochs" in names:
            self._check_longer(theirs["epochs"])

    def _check_longer(self, planned: int) -> None:
        """Raises ValueError if a run of `planned` epochs cannot become one of this length."""
        done = len(_whole_lines(self._metrics.read_bytes())) if self._metrics.exists() else 0
        if done > self._epochs:
            raise ValueError(
                f"epochs={self._epochs} is less than the {done} that out_dir={self.path} holds "
                "already: ask for as many or more, or choose another folder"
            )
        schedule = self._config["settings"]["schedule"]
        if schedule != "constant" and done:
            raise ValueError(
                f"epochs={self._epochs} cannot continue out_dir={self.path}, begun with {planned}: "
                f"schedule={schedule} falls to 0 over a run's own epochs; choose another folder"
            )

    def _take_over(self) -> None:
        """Makes the folder one of this run: an empty one, or one with fewer epochs or seeds."""
        path = self.path / "config.json"
        new = {**self._config, **self._origin}
        if not path.exists():
            records.write_json(path, new)
            return
        config = records.read_json(path)
        names = records.differing(config["settings"], self._config["settings"])
        if self.summary or not names:
            return
        if "seeds" in names:
            self._set_aside(len(config["settings"]["seeds"]))
            records.write_json(path, new)
            return
        # A result of fewer epochs goes first: its presence says that the run is done.
        (self.path / "summary.json").unlink(missing_ok=True)
        records.write_json(path, {**config, **self._origin, "settings": new["settings"]})

    def _set_aside(self, seeds: int) -> None:
        """Moves what there is into a folder of its own.

        XLA's products of a batch of runs differ in the last bits with their number, so seeds that
        are added are trained with the others from the start, and give what they always give.
        """
        aside = self.path / records.seeds_in_words(seeds).replace(" ", "_")
        self._say(f"{self.path}: more seeds train all of them from the start; moved to {aside}")
        aside.mkdir(exist_ok=True)
        checkpoints = [
            checkpoint.path_of(self.path, step).name for step in checkpoint.steps(self.path)
        ]
        for name in (*_RESULTS, *checkpoints, "config.json"):
            if (self.path / name).exists():
                (self.path / name).replace(aside / name)

    def _note_versions(self, step: int) -> None:
        """Records in config.json that a run goes on under other versions or on another device."""
        path = self.path / "config.json"
        config = records.read_json(path)
        before = config.get("resumed", [config])[-1]
        now = {name: self._config[name] for name in ("versions", "device", "commit")}
        # Older files do not say the commit.
        if now != {name: before.get(name, now[name]) for name in now}:
            self._say("versions or device differ from before: the numbers may differ slightly")
            config["resumed"] = [*config.get("resumed", []), {"after_epoch": step, **now}]
            records.write_json(path, config)

    def _refusing(self):
        """Turns a failure before training into a line that names the flag."""
        return records.usable("out_dir", self.path)

    @contextlib.contextmanager
    def _remembering(self):
        """Keeps a failure while training in `error`: the run is worth more than its files."""
        before, self.error = self.error, None
        try:
            yield
        except OSError as error:
            self.error = error
        if bool(before) != bool(self.error):
            self._say(
                f"--out_dir={self.path} cannot be written ({self.error.strerror}): training goes "
                "on, and every epoch tries again"
                if self.error
                else f"--out_dir={self.path} can be written again: nothing is missing"
            )


_RESULTS = ("metrics.jsonl", "summary.json", "best_params.npz")


def _settings_in(config: pathlib.Path) -> dict[str, Any]:
    try:
        return records.read_record(config, {"settings": records.SETTINGS})["settings"]
    except ValueError:
        raise ValueError(
            f"out_dir={config.parent}: its config.json is damaged or of another program: "
            "choose another folder, or delete that one"
        ) from None


def _whole_lines(content: bytes) -> list[bytes]:
    """The lines of metrics.jsonl up to the first that is cut or out of place."""
    whole = []
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        try:
            in_place = json.loads(line)["epoch"] == number
        except (ValueError, KeyError, TypeError):
            break
        if not (in_place and line.endswith(b"\n")):
            break
        whole.append(line)
    return whole
