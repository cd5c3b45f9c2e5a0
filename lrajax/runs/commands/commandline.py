"""What the commands share: errors of one line, quiet parsing, terminals of any kind."""

import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
from absl import flags, logging

from lrajax.runs import placement

# What other programs call some flags, which absl's spelling would send elsewhere.
MEANT = {
    "seeds": "num_seeds",
    "learning_rate": "lr",
    "optimizer": "opt",
    "optimiser": "opt",
    "rule": "algo",
    "algorithm": "algo",
    "layers": "hidden_layers",
    "hidden_size": "width",
    "data": "dataset",
    "num_epochs": "epochs",
    "output_dir": "out_dir",
}
# How Python says that a text is no number.
PYTHONS = r"(invalid literal for int\(\) with base 10|could not convert string to float): .*"


class Path(flags.ArgumentParser):
    """A path; a leading ~ is the home folder, which a shell leaves alone in `--flag=~/x`."""

    def parse(self, argument: str) -> str:
        """The path in full; that of a user who does not exist stays as it is."""
        return os.path.expanduser(argument)


def define_path(
    name: str, default: str | None, about: str, values: flags.FlagValues
) -> flags.FlagHolder:
    """Defines a flag that names a file or a folder."""
    return flags.DEFINE(Path(), name, default, about, flag_values=values)


def program() -> str:
    """What the user typed: `train.py`, or `lrajax train`."""
    return pathlib.Path(sys.argv[0]).name


def fail(error: Exception, values: flags.FlagValues | Sequence[str]) -> NoReturn:
    """Says in one line what is wrong with the command, and leaves with status 2."""
    message = " ".join(str(error).split())
    # The library names arguments; on the command line they are flags.
    dashes = "--" if message.partition("=")[0] in values else ""
    print(f"{program()}: {dashes}{message}", file=sys.stderr)
    sys.exit(2)


def parse_flags(argv: Sequence[str], values: flags.FlagValues) -> list[str]:
    """The parser of absl, with its errors on one line and no word that is not a flag."""
    logging.set_verbosity(logging.ERROR)  # JAX's search for devices is no news
    values.unparse_flags()  # of an earlier command in the same process
    try:
        rest = values(argv)
        if len(rest) > 1:
            raise ValueError(f"{rest[1]!r} is not a flag: write --name=value")
        return rest
    except flags.UnrecognizedFlagError as error:
        if error.flagname not in MEANT:
            fail(error, values)
        fail(ValueError(f"--{error.flagname} is no flag: write --{MEANT[error.flagname]}"), values)
    except (flags.Error, ValueError) as error:
        kind = "whole number" if "invalid literal for int" in str(error) else "number"
        fail(ValueError(re.sub(PYTHONS, f"write a {kind}", str(error))), values)


def run(main: Callable[[], None], values: flags.FlagValues, doc: str | None) -> None:
    """Parses the command line and hands over to `main`; --help prints `doc` and the flags."""
    on_any_terminal(lambda: _run(main, values, doc or ""))  # python -OO has none


def _run(main: Callable[[], None], values: flags.FlagValues, doc: str) -> None:
    if {word.lstrip("-") for word in sys.argv[1:] if word.startswith("-")} & {"help", "h"}:
        print(f"{doc}\n{values.get_help()}")
        return
    parse_flags(sys.argv, values)
    ease_guards()
    try:
        placement.check_backend()
    except ValueError as error:
        fail(error, values)
    # JAX's own default is bfloat16 on a TPU and TF32 on a GPU.
    with jax.default_matmul_precision("float32"):
        main()


def ease_guards() -> None:
    """Guards are for one's own code: the library's and JAX's own transfers would set them off."""
    jax.config.update("jax_transfer_guard", "allow")
    jax.config.update("jax_numpy_dtype_promotion", "standard")


def keep_programs(folder: pathlib.Path) -> None:
    """Lets JAX keep what it compiles there, unless it keeps it elsewhere: seeds run one program."""
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))


def on_any_terminal(command: Callable[[], None]) -> None:
    """Runs a command whose output may be closed, or know fewer letters than are written.

    What it reads it checks itself; a file that cannot be written, full disks above all, ends it
    with a line.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell, as in 2>&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        try:
            command()
        finally:
            sys.stdout.flush()
    except OSError as error:
        _end_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(0)  # whoever read has seen enough
        sys.exit(
            f"{program()}: {error.filename or 'a file'} cannot be written ({error.strerror}): make "
            "room, or choose another place, and give the command again"
        )


def _end_output() -> None:
    """Where it takes no more, Python, which flushes once more at the end, does so into nothing."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
