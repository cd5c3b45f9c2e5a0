"""Runs a command as a user does, in a process of its own, without paying for its imports each time.

`run` and `start` fork from a server, one a test process: it has imported what the commands import,
and started no JAX backend. What JAX reads from the environment as it is imported is the server's; a
test that varies that starts a real process, `run_anew`.
"""

import gc
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

TESTS = pathlib.Path(__file__).parent
EXPERIMENTS = TESTS.parent / "experiments"
SECONDS = 300
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["commands", "lrajax.runs.commands.train", "sklearn.datasets", "matplotlib.pyplot"]
)


def run(script, *words, env=None):
    """Runs a script, of experiments/ or with its folder: status, output and errors."""
    process = start(script, *words, env=env)
    output, errors = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(process.argv, process.returncode, output, errors)


def run_anew(script, *words, env=None):
    """The same in a fresh interpreter."""
    command = [sys.executable, EXPERIMENTS / script, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=env)


def start(script, *words, env=None):
    """The same, at work."""
    return Forked([str(EXPERIMENTS / script), *map(str, words)], env or os.environ)


class Forked:
    """As a `subprocess.Popen` of the command."""

    def __init__(self, argv, environment):
        self.argv = argv
        self._folder = tempfile.TemporaryDirectory()
        self._said = [pathlib.Path(self._folder.name, name) for name in ("out", "err")]
        for path in self._said:
            path.touch()
        order = (argv, os.getcwd(), dict(environment), *self._said)
        self._process = CONTEXT.Process(target=work, args=order)
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def communicate(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.argv, timeout)
        output, errors = (path.read_text() for path in self._said)
        self._folder.cleanup()
        return output, errors


def work(argv, cwd, environment, out, err):
    """The command itself, from its first line to its exit status."""
    gc.freeze()  # what the server imported: no collection looks through it, and so copies it
    for stream, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = argv
    sys.path[:] = [str(pathlib.Path(argv[0]).parent), *(p for p in sys.path if p != str(TESTS))]
    runpy.run_path(argv[0], run_name="__main__")
