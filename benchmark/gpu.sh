#!/usr/bin/env bash
# How training does on one NVIDIA GPU, on a machine that may be bare and without a network.
#
#   benchmark/gpu.sh pack   with a network and this project's environment: puts what that machine lacks into .gpu/
#   benchmark/gpu.sh        there, with a python3 that has PyTorch: under six minutes; metrics/benchmark_gpu.md
#
# PYTHON names another Python; further options go to benchmark/gpu.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
# Of the six minutes, what is left to the start of Python and to an orderly end.
limit=352 reserve=22

if [ "${1:-}" = pack ]; then
    exec "$python" -m benchmark.gpu_pack --requirements requirements.txt --splits data/split --folder .gpu
fi
if [ ! -d .gpu ]; then
    echo "error: .gpu is not there; 'benchmark/gpu.sh pack' makes it, where there is a network" >&2
    exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
    --target "$scratch/site" .gpu/wheels/*.whl
tar -xzf .gpu/split.tar.gz -C "$scratch"
export PYTHONPATH="$PWD/src:$scratch/site${PYTHONPATH:+:$PYTHONPATH}"
# Whatever else the machine has should not take part in the tests, nor write beside the sources.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONDONTWRITEBYTECODE=1
timeout --kill-after=5 "$((limit - SECONDS))" "$python" -m benchmark.gpu --device cuda --params params.yaml \
    --splits "$scratch/split" --committed metrics --report metrics/benchmark_gpu.md \
    --seconds "$((limit - reserve - SECONDS))" "$@"
