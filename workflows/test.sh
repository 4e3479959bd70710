#!/usr/bin/env bash
# Sets everything up and passes the tests: bash workflows/test.sh [pytest arguments]
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test

cd "$project"
ruff check .
ruff format --check .
mypy
OMP_NUM_THREADS=1 python -m pytest -m "not slow" -n 2 "$@"
