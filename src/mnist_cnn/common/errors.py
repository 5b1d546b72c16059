"""The one exception that a user is meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something outside the program is wrong; the message is one line that says what and what to do."""


@contextmanager
def about(name: str) -> Iterator[None]:
    """Put ``name`` in front of the message of an ``InputError`` that the block raises."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
