#!/bin/sh
# Run the benchmark with this folder's wheels and the machine's own torch. Arguments are those of
# `python -m benchmarks.gpu`; PYTHON is the interpreter that has torch, python3 if it is not set.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" wheels/*.whl
PYTHONPATH="$site:$PWD" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 "$python" -m benchmarks.gpu "$@"
