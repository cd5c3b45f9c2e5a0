"""`lrajax report`, from a checkout."""

from lrajax.runs.commands import report

if __name__ == "__main__":
    report.run()
