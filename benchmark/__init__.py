"""How fast training is: against the loop that everybody writes (``make bench``), and on a GPU (``gpu.sh``)."""

import signal
import sys

# First of all: Ctrl-C ends the process without a traceback while the rest is imported.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mnist_cnn.common import process  # noqa: E402

process.begin()

# Both ways train with it, as the recipes do.
BATCH_SIZE = 128
# The original programme's, where its networks have dropout.
DROPOUT = 0.1
# The model that is trained to the target.
TARGET_MODEL = "model_5"
