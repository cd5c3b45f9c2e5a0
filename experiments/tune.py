"""`lrajax tune`, from a checkout."""

from lrajax.runs.commands import tune

if __name__ == "__main__":
    tune.run()
