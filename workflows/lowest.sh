#!/usr/bin/env bash
# Passes the tests with the lowest versions that pyproject.toml allows: bash workflows/lowest.sh [pytest arguments]
# Makes the environment .venv-lowest; a release of torch for CUDA is some gigabytes (UV_TORCH_BACKEND=cpu: the small one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${NX47DASK_VENV:-$PWD/.venv-lowest}"

"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --resolution lowest-direct \
  -e ".[test,docs,http,kubernetes]"
export PATH="$venv/bin:$PATH"
sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/site
OMP_NUM_THREADS=1 python -m pytest -m "not slow" -n 2 "$@"
