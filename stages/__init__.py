"""The pipeline's stages, one module each, run by ``dvc.yaml`` as ``python -m stages.<name>``.

A stage uses the library that lies beside it, not whichever copy is installed: an experiment that DVC runs in
a folder of its own (``dvc exp run --temp``) must run that folder's code.
"""

import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mnist_cnn.common.platforms import refusal  # noqa: E402

if refusal():
    sys.exit(f"error: {refusal()}")

# No stage opens a window; matplotlib would refuse to start where a user has named a kind that it does not know.
os.environ["MPLBACKEND"] = "agg"
# PyTorch picks its vector instructions by the processor, and rounds otherwise with each kind. With AVX2, which all
# x86-64 processors since 2015 have, results have the same bytes on all of them. PyTorch reads this when it is imported.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
