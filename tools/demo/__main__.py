"""The page that recognises what one draws: ``make demo``."""

from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.settings.params import load
from tools.demo.server import LOOPBACK, make_server
from tools.demo.site import site


def main(params: Path, models: Path, runtime: Path, port: int) -> None:
    """Serve the page to this computer's browsers until it is interrupted.

    Args:
        params: the settings, params.yaml.
        models: the folder with the models that 'make repro' exports.
        runtime: the folder with ONNX Runtime for browsers, which 'make demo' installs.
        port: where to serve; 0 is any that is free.
    """
    settings = load(params)
    files = {name: models / f"{name}.onnx" for name in settings.models}
    with make_server(site(files, settings.model, runtime), port) as server:
        try:
            print(f"Draw at http://{LOOPBACK}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    cli.run(main)
