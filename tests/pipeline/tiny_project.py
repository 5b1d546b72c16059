"""A repository with DVC and nothing else in it, for tests of DVC's cache and remotes."""

from pathlib import Path

from tests.pipeline.small_project import Project


def tiny_project(folder: Path, files: dict[str, bytes]) -> Project:
    """A repository in ``folder`` with the files, for DVC to work in; nothing is committed."""
    for name, content in {".dvc/config": b"", ".dvc/.gitignore": b"/cache\n/tmp\n/config.local\n", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    project = Project(folder, folder)
    project.run("git", "init", "--quiet")
    return project


def objects(cache: Path) -> dict[str, Path]:
    """The files of DVC's cache, or of a remote, by the MD5 sum that names them. A dot begins the unfinished."""
    return {path.parent.name + path.name: path for path in cache.glob("files/md5/*/[!.]*")}
