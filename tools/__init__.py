"""The commands behind ``make``, run as ``python -m tools.<name>``. They use the library that lies beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mnist_cnn.common import process  # noqa: E402

process.begin()
