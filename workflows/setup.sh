# Sets up an environment in .venv with pinned versions; sourced by the other scripts.
# Usage: . workflows/setup.sh [extras]
set -euo pipefail
project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
venv="${NX47DASK_VENV:-$project/.venv}"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "nx47dask needs Python 3.11 or later; set PYTHON to one (this is $("$python" --version))" >&2
  exit 2
fi
wanted="$(cat "$project/workflows/constraints.txt" "$project/pyproject.toml" | cksum) ${1:-}"
if [ "$(cat "$venv/nx47dask-setup" 2>/dev/null || true)" != "$wanted" ]; then
  echo "setting up $venv (once; a few minutes)"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "$(grep '^torch==' "$project/workflows/constraints.txt")"   # first and pinned: an unpinned torch pulls CUDA
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c "$project/workflows/constraints.txt" -e "$project${1:+[$1]}"
  echo "$wanted" >"$venv/nx47dask-setup"
fi
export PATH="$venv/bin:$PATH"
