"""Whether each Python and platform that is promised has wheels of all packages; asks the package index, by uv."""

import os
import re
import subprocess
import sys
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.platforms import NEWEST, OLDEST, SYSTEMS

# As uv calls the platforms of mnist_cnn.common.platforms.
_GLIBC = "_".join(map(str, SYSTEMS["Linux"][1]))
PLATFORMS = (
    f"x86_64-manylinux_{_GLIBC}",
    f"aarch64-manylinux_{_GLIBC}",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)
# Pure Python that comes as source alone: it installs anywhere.
SOURCE_ALONE = ("antlr4-python3-runtime", "wsgidav")


def main(requirements: Path) -> None:
    """Name each place where a pinned package has no wheel. Ends with status 1 where there is one.

    Args:
        requirements: the exact versions.
    """
    pins = requirements.read_text(encoding="utf-8")
    wheels = re.sub(rf"^(?:{'|'.join(SOURCE_ALONE)})==.*\n", "", pins, flags=re.MULTILINE)
    faults = 0
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        for platform in PLATFORMS:
            fault = _fault(wheels, f"3.{minor}", platform)
            print(f"{'bad ' if fault else 'ok  '} Python 3.{minor}, {platform}{fault and ': '}{fault}", flush=True)
            faults += bool(fault)
    if faults:
        sys.exit(1)


def _fault(pins: str, python: str, platform: str) -> str:
    """Which package has no wheel, as uv says it, in a line; empty where all have one."""
    command = ["uv", "pip", "compile", "-", "--quiet", "--no-deps", "--only-binary", ":all:"]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": f"{SYSTEMS['Darwin'][1][0]}.0"}
    ended = subprocess.run(
        [*command, "--python-version", python, "--python-platform", platform],
        input=pins,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    return " ".join(ended.stderr.split()) if ended.returncode else ""


if __name__ == "__main__":
    cli.run(main)
