"""The one exception that a user is meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something outside the program is wrong; the message is one line that says what and what to do."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception tells of the end of memory, which PyTorch and safetensors do by a bare RuntimeError."""
    words = str(error).lower()
    told = ("not enough memory", "allocate memory", "out of memory", "unable to mmap", "bad_alloc")
    return isinstance(error, MemoryError) or any(part in words for part in told)


@contextmanager
def about(name: str) -> Iterator[None]:
    """Put ``name`` in front of the message of an ``InputError`` that the block raises."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
