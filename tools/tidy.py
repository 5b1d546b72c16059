"""DVC's cache, cut down to what this folder has, for later runs to start from."""

import subprocess
import sys
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.files import atomic_write
from tools.lock import stages_of
from tools.objects import md5 as md5_of


def main(lock: Path, cache: Path) -> None:
    """Remove from DVC's cache what the lock file does not name. Data and checkpoints stay, and so do results in files.

    'dvc gc' alone would remove results that are in Git. But DVC takes a run from its cache only where that has all the
    run has made: without a model's history, for one, it would train the model again.

    Args:
        lock: DVC's lock file.
        cache: DVC's cache.
    """
    ended = subprocess.run([sys.executable, "-m", "dvc", "gc", "--workspace", "--force"])
    if ended.returncode:
        sys.exit(ended.returncode)
    stages = stages_of(lock.read_text(encoding="utf-8"), lock).values()
    for out in (out for stage in stages for out in stage.get("outs", [])):
        if "md5" in out:  # DVC writes some without, where a run was ended
            _keep(Path(out["path"]), out["md5"], cache)


def _keep(file: Path, md5: str, cache: Path) -> None:
    """Put a file back into the cache if it is still what the lock file says. Read-only, as DVC has them."""
    kept = cache / "files" / "md5" / md5[:2] / md5[2:]
    if kept.exists() or not file.is_file():
        return
    if md5_of(file) == md5:
        with atomic_write(kept) as temporary:
            temporary.write_bytes(file.read_bytes())
            temporary.chmod(0o444)


if __name__ == "__main__":
    cli.run(main)
