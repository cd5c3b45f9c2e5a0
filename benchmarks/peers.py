"""Others' code made ready to be timed: a class taken out of a script, PyTorch's threads chosen."""

import ast
import contextlib
import functools
import io
import pathlib
from collections.abc import Callable
from typing import Any

import timing
from report import Skipped


def model_of(
    flag: str, path: pathlib.Path | None, how: str, name: str, namespace: Callable[[], dict]
) -> type:
    """The class `name` of a file that the user has fetched.

    Args:
      flag: that names the file.
      path: the flag's file, None without the flag.
      how: to get it, for the user.
      name: of the class.
      namespace: gives what the class's code finds as globals; imports PyTorch.

    Raises:
      Skipped: there is no such file, or no PyTorch.
      ValueError: the file has no such class.
    """
    if path is None:
        raise Skipped(how)
    if not path.is_file():
        raise Skipped(f"{flag}: there is no file {path.name}; {how}")
    try:
        names = namespace()
    except ImportError:
        raise Skipped("PyTorch is not installed: pip install torch") from None
    return load_class(path, name, names)


def load_class(path: pathlib.Path, name: str, namespace: dict[str, Any]) -> type:
    """The class `name` of a Python file.

    The file is neither imported nor run: it may train at import or need what is not installed.

    Args:
      path: of the file.
      name: of the class.
      namespace: what the class's code finds as globals.

    Raises:
      ValueError: the file has no such class.
    """
    tree = ast.parse(path.read_text())
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    if not classes:
        raise ValueError(f"{path.name} has no class {name}: give the file that README.md names")
    module = ast.Module(body=classes[-1:], type_ignores=[])
    # The user named this file for its code to be run.
    exec(compile(module, str(path), "exec"), namespace)
    return namespace[name]


def quiet():
    """A context in which nothing is printed."""
    return contextlib.redirect_stdout(io.StringIO())


def choose_threads(call: Callable[[], object], repeats: int = 3) -> int:
    """Sets PyTorch to one CPU thread or to its own choice, whichever makes a call faster.

    Small products gain little from a second thread, and lose much where something else is running.

    Returns:
      The number of threads that was set.
    """
    import torch

    def with_threads(count: int) -> Callable[[], None]:
        def timed():
            torch.set_num_threads(count)
            call()

        return timed

    seconds = timing.interleaved({n: with_threads(n) for n in {1, _own_threads()}}, repeats)
    best = min(seconds, key=lambda n: float(min(seconds[n])))
    torch.set_num_threads(best)
    return best


@functools.cache
def _own_threads() -> int:
    """The number of threads that PyTorch started with."""
    import torch

    return torch.get_num_threads()
