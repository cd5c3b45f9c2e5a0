"""`lrajax list`: the rules with their settings, networks, optimisers and data sets."""

from lrajax.runs.commands import commandline, helptext


def run() -> None:
    """The command."""
    commandline.on_any_terminal(lambda: print(helptext.list_text()))
