"""The one exception that a user is meant to read."""


class InputError(Exception):
    """Something outside the program is wrong; the message is one line that says what and what to do."""
