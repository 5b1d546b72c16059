"""The pipeline's stages, one module each, run by ``dvc.yaml`` as ``python -m stages.<name>``.

A stage uses the library that lies beside it, not whichever copy is installed: an experiment that DVC runs in
a folder of its own (``dvc exp run --temp``) must run that folder's code.
"""

import signal
import sys

# First of all: Ctrl-C ends the process without a traceback while the rest is imported.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import functools  # noqa: E402
import os  # noqa: E402
from collections.abc import Callable  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mnist_cnn.common.platforms import refusal, vector_instructions  # noqa: E402

if refusal():
    sys.exit(f"error: {refusal()}")

# No stage opens a window, and no figure follows a user's own settings of matplotlib, which reads them when imported.
os.environ["MPLBACKEND"] = "agg"
if matplotlib := find_spec("matplotlib"):
    os.environ["MATPLOTLIBRC"] = str(Path(str(matplotlib.origin)).with_name("mpl-data"))
# PyTorch picks its vector instructions by the processor, and rounds otherwise with each kind. With AVX2, which all
# x86-64 processors since 2015 have, results have the same bytes on all of them. PyTorch reads this when it is imported.
# What a user has set for other programs does not count: DVC records results without it.
if instructions := vector_instructions():
    os.environ["ATEN_CPU_CAPABILITY"] = instructions

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
            sys.stdout.flush()
            followed.check_unchanged()
            # At once, because DVC reads the inputs next: Python would take seconds to end PyTorch.
            os._exit(0)

    cli.run(checked)
