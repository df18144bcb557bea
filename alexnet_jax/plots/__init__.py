"""All figures.

matplotlib cannot be imported where MPLBACKEND names a backend that is not installed, such as that
of the notebook that started the program. Saving figures needs none, so such a name is ignored.
"""

import contextlib
import os
import sys

if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", None)):
    import matplotlib

    os.environ["MPLBACKEND"] = _backend
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend
