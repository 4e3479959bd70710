#!/usr/bin/env bash
# Sets everything up and runs the main job on a sample: bash workflows/quickstart.sh [VOLUME]
# VOLUME: a TIFF, a folder of TIFFs or a Zarr; without it, a synthetic scroll with labels is made and scored.
# Results: runs/quickstart/.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" openvino  # runs the network on a CPU faster than torch

volume="${1:-}"
labels=()
if [ -z "$volume" ]; then
  sample="$project/runs/sample"
  [ -f "$sample/train.csv" ] || nx47dask phantom --out "$sample" --shape 192,256,256 --seed 2
  volume="$sample/train_images"
  labels=(--labels "$sample/train_labels")
fi
out="${NX47DASK_OUT:-$project/runs/quickstart}"
nx47dask run "$volume" --out "$out" --overwrite "${labels[@]}"
echo
echo "masks:  $out/masks"
echo "report: $out/report.html"
