"""Runs a script of experiments/ as a user does."""

import pathlib
import subprocess
import sys

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


def run(script, *words):
    command = [sys.executable, EXPERIMENTS / script, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)
