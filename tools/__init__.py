"""The commands behind ``make``, run as ``python -m tools.<name>``. They use the library that lies beside them."""

import signal
import sys

# First of all: Ctrl-C ends the process without a traceback while the rest is imported.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mnist_cnn.common import process  # noqa: E402

process.begin()
