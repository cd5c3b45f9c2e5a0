"""The application layer: settings -> compiled runs -> files, and the commands around them.

`read` gives the files of runs as rows of data, `load` a run's network and parameters.
"""

from lrajax.runs.reading import Loaded, Rows, find, load, read

__all__ = ["Loaded", "Rows", "find", "load", "read"]
