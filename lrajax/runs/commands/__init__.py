"""The commands: flags, help and exit codes, a module each."""
