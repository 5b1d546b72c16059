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
from mnist_cnn.common.errors import InputError  # noqa: E402
from mnist_cnn.common.inputs import StageInputs  # noqa: E402
from mnist_cnn.common.libraries import check_installed  # noqa: E402

process.begin()


def _read_inputs() -> StageInputs | InputError | None:
    """What this process's stage follows from, or why that is not known; None where DVC has not started it."""
    if not process.is_starting() or "DVC_STAGE" not in os.environ:
        return None
    try:
        return StageInputs(os.environ["DVC_STAGE"])
    except InputError as error:
        return error


# Now, before the stage's own code is imported: an edit in the seconds that PyTorch takes would not be seen later.
_inputs = _read_inputs()


def inputs() -> StageInputs | None:
    """What this process's stage follows from; None where DVC has not started it. Raises as ``StageInputs``."""
    if isinstance(_inputs, InputError):
        raise _inputs
    return _inputs


def run(main: Callable[..., None]) -> None:
    """Run a stage's ``main`` as a command.

    It fails where packages are installed in other versions than those that its result is recorded with, and where what
    it follows from was changed meanwhile.
    """

    @functools.wraps(main)
    def checked(**options: object) -> None:
        followed = inputs()
        for path in followed.paths if followed else []:
            if path.parent.name == "libraries":
                check_installed(path)
        main(**options)
        if followed:
            followed.check_unchanged()

    cli.run(checked)
