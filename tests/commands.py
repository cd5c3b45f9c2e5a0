"""Runs a command as a user does, in a process of its own, without paying for its imports each time.

`run` asks a server, one a test process: it has imported what the commands import, started no JAX
backend, and forks for every command. What JAX reads from the environment as it is imported is the
server's; a test that varies that starts a real process, `run_anew`.
"""

import contextlib
import importlib
import json
import os
import pathlib
import runpy
import select
import subprocess
import sys
import tempfile

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
IMPORTS = ("jax", "optax", "lrajax", "lrajax.runs.commands.train", "sklearn.datasets", "matplotlib")
SECONDS = 300


def run(script, *words, env=None):
    """Runs a script of experiments/ with these words: status, output and errors."""
    return _server().run([str(EXPERIMENTS / script), *map(str, words)], env or os.environ)


def run_anew(script, *words, env=None):
    """The same in a fresh interpreter."""
    command = [sys.executable, EXPERIMENTS / script, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=env)


_running = []


def _server():
    if not _running:
        _running.append(Server())
    return _running[0]


class Server:
    """The process that forks; it ends when this one does, with its standard input."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, argv, environment):
        with tempfile.TemporaryDirectory() as folder:
            out, err = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
            order = [argv, os.getcwd(), dict(environment), str(out), str(err)]
            print(json.dumps(order), file=self.process.stdin, flush=True)
            if not select.select([self.process.stdout], [], [], SECONDS)[0]:
                self.process.kill()
                _running.clear()
                raise subprocess.TimeoutExpired(argv, SECONDS)
            status = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(argv, status, out.read_text(), err.read_text())


def serve():
    """Forks for every line of standard input, and answers with the exit status."""
    for name in IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            work(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def work(argv, cwd, environment, out, err):
    """The command itself, from its first line to its exit status."""
    for stream, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:], sys.path[0] = argv, str(pathlib.Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    serve()
