"""The number of processors, for make."""

from mnist_cnn.common import cli
from mnist_cnn.common.processors import usable_processors


def main() -> None:
    """Print how many processors this process may use."""
    print(usable_processors())


if __name__ == "__main__":
    cli.run(main)
