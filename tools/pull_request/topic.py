"""What a comment on a pull request is about: one is kept for each topic. Needs nothing that is installed."""

import re

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError


def main(topic: str) -> None:
    """Refuse a topic that no comment can have.

    Args:
        topic: what a comment would be about.
    """
    check(topic)


def check(topic: str) -> None:
    """Raises InputError where a topic would not stay within the HTML comment that marks its comment."""
    if not re.fullmatch(r"[A-Za-z0-9][\w. ]*(-[\w. ]+)*", topic):
        raise InputError(f"topic: {topic!r} is not allowed: letters, digits, '_', '.', spaces, single '-'")


if __name__ == "__main__":
    cli.run(main)
