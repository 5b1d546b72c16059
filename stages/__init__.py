"""The pipeline's stages, one module each, run by ``dvc.yaml`` as ``python -m stages.<name>``.

A stage uses the library that lies beside it, not whichever copy is installed: an experiment that DVC runs in
a folder of its own (``dvc exp run --temp``) must run that folder's code.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
