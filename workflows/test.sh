#!/usr/bin/env bash
# Sets everything up and passes the tests: bash workflows/test.sh [pytest arguments]
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test,docs

cd "$project"
ruff check .
ruff format --check .
mypy
sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/site
OMP_NUM_THREADS=1 python -m pytest -m "not slow" -n 2 "$@"
