"""`lrajax train`, from a checkout."""

from lrajax.runs.commands import train

if __name__ == "__main__":
    train.run()
