"""The pipeline's stages, one module each, run by ``dvc.yaml`` as ``python -m stages.<name>``.

A stage uses the library that lies beside it, not whichever copy is installed: an experiment that DVC runs in
a folder of its own (``dvc exp run --temp``) must run that folder's code.
"""

import functools
import os
import platform
import sys
from collections.abc import Callable
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

from mnist_cnn.common import cli, process  # noqa: E402
from mnist_cnn.common.inputs import StageInputs  # noqa: E402

process.quiet_while_starting()
# Read before the stage's own code is imported: an edit in the seconds that PyTorch takes would not be seen later.
_inputs = StageInputs(os.environ["DVC_STAGE"]) if process.is_starting() and "DVC_STAGE" in os.environ else None


def inputs() -> StageInputs | None:
    """What this process's stage follows from; None where it was not started by DVC."""
    return _inputs


def run(main: Callable[..., None]) -> None:
    """Run a stage's ``main`` as a command; it fails where what it follows from was changed meanwhile."""

    @functools.wraps(main)
    def checked(**options: object) -> None:
        main(**options)
        if _inputs is not None:
            _inputs.check_unchanged()

    cli.run(checked)
