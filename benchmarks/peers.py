"""Takes one class out of somebody's script without running the rest of the script."""

import ast
import contextlib
import io
import pathlib
from typing import Any


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
