"""`lrajax COMMAND ...`: the commands of the package, the same as the scripts of a checkout."""

import importlib
import sys

import lrajax_command

COMMANDS = {
    "train": "train a network with one learning rule",
    "tune": "search for a rule's settings on a task, by the protocol of the comparison",
    "report": "draw one run, or compare several",
    "list": "the rules, networks, optimisers and data sets there are",
}


def main() -> None:
    """Hands the command line to the command that its first word names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        lines = (f"  lrajax {command:<8} {text}" for command, text in COMMANDS.items())
        usage = "\n".join(("usage: lrajax COMMAND ..., lrajax COMMAND --help", "", *lines))
        if name in ("--help", "-h", "help"):
            print(usage)
            sys.exit()
        print(f"lrajax: {name!r} is no command\n{usage}", file=sys.stderr)
        sys.exit(2)
    sys.argv[:2] = [f"lrajax {name}"]
    lrajax_command.listen()
    importlib.import_module(f"lrajax.runs.commands.{name}").run()


if __name__ == "__main__":
    main()
