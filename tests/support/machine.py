"""How busy the machine is that the tests run on."""

import os

_LEAST = 3.0


def patience() -> float:
    """How many times as long as on an idle machine something may take just now: twice as many as there were programs to
    each core in the last minute, and never less than three."""
    return max(_LEAST, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
