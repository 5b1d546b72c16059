"""How a stage or a tool is called: its ``main`` takes paths and names, and each becomes a required option."""

import inspect
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

from mnist_cnn.common import process
from mnist_cnn.common.errors import InputError, is_out_of_memory

# What an option takes, as its help names it.
_KINDS = {Path: "PATH", str: "TEXT", int: "NUMBER", float: "NUMBER"}


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's options, one ``--name`` for each parameter, of its annotated type.

    What is wrong outside the program ends it with a line in place of a traceback, and status 1: an ``InputError``
    with its message, an error of files with the file and the system's words.
    """
    process.start()
    parser = _parser(main)
    try:
        main(**vars(parser.parse_args()))
        sys.stdout.flush()
    except InputError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))
    except BrokenPipeError:
        # Whoever read the output has stopped, as 'head' does. What is left of it would fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        sys.exit(f"error: {_told(error)}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(f"error: out of memory ({' '.join(str(error).split()) or 'nothing more is known'})")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser(main: Callable[..., None]) -> ArgumentParser:
    """The command line of ``main``, which explains itself by the docstring."""
    spec = sys.modules[main.__module__].__spec__
    name = (spec.name if spec else main.__module__).removesuffix(".__main__")
    summary, details, arguments = explained(inspect.getdoc(main) or "")
    parser = ArgumentParser(f"python -m {name}", description=summary, epilog=details, allow_abbrev=False)
    for name, parameter in inspect.signature(main, eval_str=True).parameters.items():
        kind, told = parameter.annotation, arguments.get(name, "").replace("%", "%%")
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, required=True, metavar=_KINDS.get(kind), help=told
        )
    return parser


def explained(docstring: str) -> tuple[str, str, dict[str, str]]:
    """A docstring's first paragraph, its others, and what its section ``Args`` says of each argument; no markup.

    Args:
        docstring: in Google's style, without the indentation that it has in a file.
    """
    text, *sections = re.split(r"^(?=[A-Z]\w+:$)", docstring.replace("``", "'"), flags=re.MULTILINE)
    summary, _, details = text.partition("\n\n")
    listed = "".join(section for section in sections if section.startswith("Args:"))
    arguments = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return summary, details, {name: " ".join(words.split()) for name, words in arguments}


def _told(error: OSError) -> str:
    """An error of the system in a line, with the files that it is about."""
    files = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    words = error.strerror or str(error) or type(error).__name__
    return " ".join(f"{files}: {words}".split() if files else words.split())
