"""How a stage or a tool is called: its ``main`` takes paths and names, and each becomes a required option."""

import inspect
import sys
from argparse import ArgumentParser
from collections.abc import Callable

from mnist_cnn.common.errors import InputError


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's options, one ``--name`` for each parameter, of its annotated type.

    An ``InputError`` ends the process with its message in place of a traceback, and status 1.
    """
    spec = sys.modules[main.__module__].__spec__
    name = (spec.name if spec else main.__module__).removesuffix(".__main__")
    parser = ArgumentParser(prog=f"python -m {name}", description=main.__doc__, allow_abbrev=False)
    for name, parameter in inspect.signature(main, eval_str=True).parameters.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=parameter.annotation, required=True)
    try:
        main(**vars(parser.parse_args()))
    except InputError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))
    except KeyboardInterrupt:
        sys.exit(130)
