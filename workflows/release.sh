#!/usr/bin/env bash
# Builds wheel and sdist into dist/ and tries the wheel in an environment of its own: bash workflows/release.sh
# The wheel is built from the sdist, so the sdist is complete.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${NX47DASK_VENV:-$PWD/.venv-release}"

"${PYTHON:-python3}" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check build \
  "$(grep '^torch==' workflows/constraints.txt)"   # first and pinned: an unpinned torch pulls CUDA
rm -rf dist
"$venv/bin/python" -m build --outdir dist .
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c workflows/constraints.txt dist/*.whl

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export PATH="$venv/bin:$PATH"
(cd "$work"   # away from the sources: what runs is the wheel
  nx47dask --version
  nx47dask phantom --out sample --shape 32,48,48 --seed 1
  for preset in fast surface; do
    nx47dask run sample/train_images --out "runs/$preset" --workflow "$preset" --serial
  done)
