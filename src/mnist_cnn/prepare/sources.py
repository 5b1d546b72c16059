"""What a source of a data set's files is, and how it is told of without secrets and without control characters."""

import re
import string
from collections.abc import Callable

# Gives a file's bytes, as it is to be stored, for its name; raises SourceError.
Source = Callable[[str], bytes]

# Longer words from outside are cut: a server's answer may have any length.
_LONGEST = 300
# What may stand behind an address in a message, and what its scheme is made of.
_CLOSING = ")]}>'\"`,.;:!?"
_OF_SCHEMES = f"{string.ascii_letters}{string.digits}+.-_"
_SCHEME = re.compile("([a-z][a-z0-9+.-]*://)?(.*)", re.IGNORECASE | re.DOTALL)


class SourceError(Exception):
    """One source could not deliver one file; the next one is tried."""


class NotThereError(SourceError):
    """The source works but does not hand out a file under this name; it may do so under another."""


def printable(text: str) -> str:
    """``text`` with an escape (as in Python) for every character that is not printable.

    A control character would steer the user's terminal, a line break would begin a line that the program never wrote.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(address: str) -> str:
    """An address without user, password, query and fragment: they may be secrets.

    It need not be a valid one. An at sign behind the host may belong to a password that was not escaped: then nothing
    but the scheme is shown.
    """
    scheme, rest = _SCHEME.fullmatch(address).groups(default="")  # type: ignore[union-attr]  # it fits any text
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(authority) :] and scheme.lower() != "file://":
        return f"{scheme}…"
    rest = authority.rpartition("@")[2] + rest[len(authority) :]
    return scheme + re.split("[?#]", rest, maxsplit=1)[0]


def brief(text: object) -> str:
    """What an error says, in one printable piece: addresses as in ``shown``, cut where it is long."""
    return printable(" ".join(map(_word, str(text).split())))[:_LONGEST]


def _word(word: str) -> str:
    """A word of a message without what ``shown`` hides: an address, a path with a query, either in quotes or brackets.

    No regular expression looks for the address: an index may send a word of a megabyte, and that would take hours.
    """
    inner = word.rstrip(_CLOSING)
    before, sign, rest = inner.partition("://")
    opening = before.rstrip(_OF_SCHEMES) if sign else ""
    if shown(opening) != opening:  # the address is in a query
        said = shown(opening)
    elif "://" in rest and "@" in rest:  # where the first address ends is not known
        said = f"{before}://…"
    else:
        said = opening + shown(inner[len(opening) :])
    return said + word[len(inner) :]
