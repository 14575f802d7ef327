#!/bin/sh
# Run all stages from the folder that `python -m mini pack` made, with its wheels if it has any and
# the machine's own torch, and leave what was made in pieces, also if a stage fails:
#     sh run.sh PIECES --minutes 8
# PYTHON is the interpreter that has torch, python3 if it is not set.
set -u
python=${PYTHON:-python3}
mkdir -p "$1"
pieces=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")"
if [ -d wheels ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target site wheels/*.whl || exit
    export PYTHONPATH="$PWD/site"
fi
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
"$python" -m mini all --work work "$@" >"$pieces/log" 2>&1
status=$?
tail -n 30 "$pieces/log"
"$python" -m mini split --work work/out --out "$pieces"
exit $status
