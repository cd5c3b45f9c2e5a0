"""`lrajax list`: the rules with their settings, networks, optimisers and data sets."""

from lrajax.runs.commands import helptext


def run() -> None:
    """The command."""
    print(helptext.list_text())
