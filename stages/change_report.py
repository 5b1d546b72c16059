"""The report on a change, for its pull request."""

from pathlib import Path

from mnist_cnn.change_report import change_report, load_results
from mnist_cnn.errors import InputError
from mnist_cnn.files import write_text
from stages import cli


def main(title: str, before: Path, after: Path, altered: Path, pictures: str, reproduce: str, report: Path) -> None:
    """Compare the results of two versions of the repository, each in a folder, and write the report.

    ``altered`` is a file that names, a line each, the results that were reproduced otherwise than committed;
    ``pictures`` the address of the folder that has them, or nothing; ``reproduce`` commands, a line each.
    """
    results = load_results(after)
    if results is None:
        raise InputError(f"{after}: has no results; 'make repro' makes them")
    names = altered.read_text(encoding="utf-8").splitlines()
    page = change_report(title, load_results(before), results, names, pictures or None, reproduce.splitlines())
    write_text(report, page)


if __name__ == "__main__":
    cli.run(main)
