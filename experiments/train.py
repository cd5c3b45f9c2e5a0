"""`lrajax train`, from a checkout."""

import lrajax_command

if __name__ == "__main__":
    lrajax_command.listen()
    from lrajax.runs.commands import train

    train.run()
