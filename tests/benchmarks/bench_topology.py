"""Ablation table of post-processing: what each step adds to a base chain, alone and cumulated.

Either on fixed probability maps with labels in the competition's layout (``ID.npy`` or ``ID.tif``, uint8, and
``train_labels/ID.tif``), or on masks of human sheets (NRRD) with planted defects, whose labels are the masks as they
were::

    python -m tests.benchmarks.bench_topology --scores MAPS --labels LABELS [--workflow surface] [--rows rows.yaml]
    python -m tests.benchmarks.bench_topology --planted MASKS --first [--blur 1.0]

A row may have several alternatives. *Held out* means that for each volume those are taken that are best in the mean of
the others: of a row alone by itself, of the chain by the whole chain, whose rows are then cumulated. *In sample* means
that they are taken on all volumes. Everything is evaluated once. Seconds are processor time of the whole chain on one
core.

The planted mask stands for a probability of 0 and 1; with ``--blur`` it becomes a noisy probability first. Human masks
have hundreds of tunnels of their own, which the score counts as true, so that a repair cannot raise it there: have
``--first``, and look at what became of the defects.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import yaml

from nx47dask.metrics.score import official_score
from nx47dask.metrics.terms import SCORES
from nx47dask.steps import STEPS
from nx47dask.steps.passes import compile_passes
from nx47dask.steps.whole import whole_mask
from nx47dask.workflow import load_workflow, workflow_of
from tests.planted import Planted, Recipe, blurred, plant, read_sheets, repaired

BASE = """
- smooth: {sigma_zyx_vox: [1.5, 1.5, 1.5]}
- hysteresis: {low: 0.45, high: 0.8}
- small_objects: {min_vox: 5000}
"""
ROWS = """
- name: smoothing along the sheets
  replaces: smooth
  any:
    - [{smooth: {sigma_zyx_vox: [0.7, 0.7, 0.7]}}, {smooth_sheet: {sigma_vox: 4, window_vox: 7}}]
    - [{smooth: {sigma_zyx_vox: [0.7, 0.7, 0.7]}}, {smooth_sheet: {sigma_vox: 3}}]
    - [{smooth: {sigma_zyx_vox: [1, 1, 1]}}, {smooth_sheet: {sigma_vox: 3}}]
    - [{smooth: {sigma_zyx_vox: [1, 1, 1]}}, {smooth_sheet: {sigma_vox: 4, window_vox: 7}}]
- name: low threshold
  replaces: hysteresis
  any: [{hysteresis: {low: 0.5, high: 0.8}}, {hysteresis: {low: 0.4, high: 0.8}}]
- name: larger objects only
  replaces: small_objects
  any: [{small_objects: {min_vox: 12000}}, {small_objects: {min_vox: 8000}}]
- name: plug pinholes
  any: [plug_pinholes]
- name: closing
  any: [{closing: {radius_zyx_vox: [1, 1, 1]}}]
- name: plug pinholes again
  any: [plug_pinholes]
- name: fill holes
  any: [fill_holes]
- {name: patch holes, extra: true, any: [patch_holes]}
- {name: closing of 2 voxels, extra: true, any: [{closing: {radius_zyx_vox: [2, 2, 2]}}]}
- {name: vote along z, extra: true, any: [{z_coherence: {rule: vote}}]}
- {name: opening, extra: true, any: [{opening: {radius_zyx_vox: [1, 1, 1]}}]}
- {name: thinning, extra: true, any: [thin]}
- {name: thickening, extra: true, any: [thicken]}
- {name: clear border, extra: true, any: [clear_border]}
"""
"""Rows in the order of the chain: a name, and any one of some steps or lists of steps, that of `surface` first.

A step on probabilities goes before the base's first step that gives a mask, a step on masks to the end; with
``replaces`` it stands for a step of the base. What is ``extra`` is shown alone and after the whole chain.
"""

SHARES = ("pinholes", "holes", "bridges", "specks", "lost")
PINHOLE_VOX = 1.0
WARM_UP = (slice(0, 48),) * 3

Chain = tuple[str, ...]
"""Items of a workflow's list of steps as JSON, so that chains can be compared and kept."""


@dataclass(frozen=True)
class Row:
    """A row of the table: its alternatives, the step of the base that they replace, whether it is beside the chain."""

    name: str
    alternatives: tuple[Chain, ...]
    replaces: str | None = None
    extra: bool = False


class Line(NamedTuple):
    """A line of the table: its title, the held-out chain of every volume, and the in-sample chain."""

    title: str
    held: list[Chain]
    sample: Chain


@dataclass(frozen=True)
class Case:
    """A volume: its name, the file it comes from, and its labels (maps) or the blur of the mask (planted)."""

    name: str
    source: Path
    labels: Path | None = None
    blur: float = 0.0
    seed: int = 0


def read_chain(text: str) -> Chain:
    return tuple(json.dumps(item) for item in yaml.safe_load(text))


def read_rows(text: str) -> list[Row]:
    def steps(item: object) -> Chain:
        return tuple(json.dumps(one) for one in (item if isinstance(item, list) else [item]))

    return [
        Row(row["name"], tuple(map(steps, row["any"])), row.get("replaces"), row.get("extra", False))
        for row in yaml.safe_load(text)
    ]


def name_of(item: str) -> str:
    data = json.loads(item)
    return data if isinstance(data, str) else next(iter(data))


def with_steps(chain: Chain, row: Row, steps: Chain) -> Chain:
    """The chain with steps of a row where they belong."""
    names = [name_of(one) for one in chain]
    after = len(chain)
    if row.replaces:
        place = names.index(row.replaces)
        after = place + 1
    elif STEPS[name_of(steps[0])].gives == "probability":
        place = after = next(n for n, name in enumerate(names) if STEPS[name].gives == "mask")
    else:
        place = after
    return (*chain[:place], *steps, *chain[after:])


@functools.cache
def planted_case(case: Case) -> Planted:
    return plant(read_sheets(case.source), Recipe(seed=case.seed))


def read_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Probability and labels of a volume."""
    if case.labels:
        read = np.load if case.source.suffix == ".npy" else tifffile.imread
        return read(case.source), tifffile.imread(case.labels)
    planted = planted_case(case)
    labels = (planted.sheets != 0).astype(np.uint8)
    if case.blur:
        return blurred(planted.mask, case.blur, seed=case.seed), labels
    return np.uint8(255) * planted.mask, labels


def evaluate(case: Case, chain: Chain) -> dict[str, float]:
    """Run a chain on a volume and measure the result."""
    workflow = workflow_of({"detect": ["sheetness"], "postprocess": [json.loads(item) for item in chain]}, "ablation")
    passes = compile_passes(workflow.steps)
    if any(one.reads_image for one in passes):
        raise SystemExit("a step of this chain reads the scan, which is not here")
    probability, labels = read_case(case)
    whole_mask(passes, np.ascontiguousarray(probability[WARM_UP]), None)  # compiles what there is to
    start = time.process_time()
    mask = whole_mask(passes, probability, None)
    seconds = time.process_time() - start
    score = official_score(mask, labels, places=False)
    matched, predicted, labelled = score["counts"][1]
    found = {"seconds": seconds, "matched": matched, "predicted": predicted, "labelled": labelled}
    found |= {name: score[name] for name in SCORES}
    if not case.labels:
        after = repaired(planted_case(case), mask)
        found |= {
            "pinholes": after.share("hole", (0, PINHOLE_VOX)),
            "holes": after.share("hole", (PINHOLE_VOX, np.inf)),
            "bridges": after.share("bridge"),
            "specks": after.share("speck"),
            "lost": after.lost,
        }
    return found


class Results:
    """What chains give on all volumes, each evaluated once."""

    def __init__(self, cases: list[Case], pool: ProcessPoolExecutor) -> None:
        self.cases, self.pool = cases, pool
        self.found: dict[Chain, list[dict[str, float]]] = {}

    def of(self, chains: Iterable[Chain]) -> None:
        """Evaluate chains that are new, at once."""
        new = [chain for chain in dict.fromkeys(chains) if chain not in self.found]
        waiting = {chain: [self.pool.submit(evaluate, case, chain) for case in self.cases] for chain in new}
        for chain, futures in waiting.items():
            self.found[chain] = [future.result() for future in futures]

    def best(self, chains: list[Chain], without: int | None = None) -> Chain:
        """The chain with the best mean score, over all volumes or all but one; the first of equals."""
        return max(
            chains,
            key=lambda chain: statistics.mean(
                one["score"] for n, one in enumerate(self.found[chain]) if n != without or len(self.cases) == 1
            ),
        )


def chosen(results: Results, base: Chain, rows: list[Row], without: int | None) -> list[Chain]:
    """The alternative of every row that makes the whole chain best, one row after the other, twice."""
    steps = [row.alternatives[0] for row in rows]
    for number, row in [*enumerate(rows), *enumerate(rows)]:
        options = [[*steps[:number], one, *steps[number + 1 :]] for one in row.alternatives]
        chains = [chain_of(base, rows, option) for option in options]
        results.of(chains)
        steps = options[chains.index(results.best(chains, without))]
    return steps


def chain_of(base: Chain, rows: list[Row], steps: list[Chain]) -> Chain:
    """The base chain with the first rows, as many as there are steps."""
    for row, one in zip(rows, steps, strict=False):
        base = with_steps(base, row, one)
    return base


def ablate(results: Results, base: Chain, rows: list[Row]) -> list[Line]:
    """Lines of the table: the base, each row alone, the rows of the chain one after the other, the others after it."""
    numbers = range(len(results.cases))
    of_chain = [row for row in rows if not row.extra]
    results.of([base])

    def line(title: str, row: Row, before: Line) -> Line:
        def best(chain: Chain, without: int | None) -> Chain:
            options = [with_steps(chain, row, steps) for steps in row.alternatives]
            results.of(options)
            return results.best(options, without)

        held = [best(chain, n) for n, chain in zip(numbers, before.held, strict=True)]
        return Line(title, held, best(before.sample, None))

    choices = [chosen(results, base, of_chain, n) for n in (*numbers, None)]
    lines = []
    for count in range(len(of_chain) + 1):
        *held, sample = (chain_of(base, of_chain, steps[:count]) for steps in choices)
        results.of([*held, sample])
        lines.append(Line(f"+ {of_chain[count - 1].name}" if count else "base", held, sample))
    alone = [line(row.name, row, lines[0]) for row in rows]
    extra = [line(f"chain and {row.name}", row, lines[-1]) for row in rows if row.extra]
    return [lines[0], *alone, *lines[1:], *extra]


def table(results: Results, lines: list[Line]) -> str:
    """The table in Markdown: means over the volumes, held out, and each volume's difference to the base."""
    base = results.found[lines[0].sample]
    shares = SHARES if "lost" in base[0] else ()
    heads = [
        "", "score", "topo", "surface dice", "voi", "in sample", "loops", "in labels", "matched",
        *shares,
        "seconds", *(f"Δ {case.name}" for case in results.cases),
    ]  # fmt: skip
    text = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for title, held, sample in lines:
        found = [results.found[chain][n] for n, chain in enumerate(held)]

        def mean(key: str, found: list[dict[str, float]] = found) -> float:
            return statistics.mean(one[key] for one in found)

        cells = [
            title,
            *(f"{mean(key):.4f}" for key in SCORES),
            f"{statistics.mean(one['score'] for one in results.found[sample]):.4f}",
            *(f"{mean(key):.0f}" for key in ("predicted", "labelled", "matched")),
            *(f"{mean(key):.2%}" if key == "lost" else f"{mean(key):.0%}" for key in shares),
            f"{mean('seconds'):.1f}",
            *(f"{one['score'] - first['score']:+.4f}" for one, first in zip(found, base, strict=True)),
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def choices(lines: list[Line]) -> str:
    """Which chain each volume was given, without what is extra."""
    _, held, sample = [line for line in lines if not line.title.startswith("chain and")][-1]
    counted = {chain: held.count(chain) for chain in dict.fromkeys(held)}
    text = [f"held out, {count} volumes: {', '.join(chain)}" for chain, count in counted.items()]
    return "\n".join([*text, f"in sample: {', '.join(sample)}"])


def cases_of(options: argparse.Namespace) -> list[Case]:
    if options.planted:
        files = sorted(options.planted.glob("*.nrrd"))
        return [Case(path.stem[:11], path, blur=options.blur, seed=n) for n, path in enumerate(files)]
    labels = options.labels / "train_labels" if (options.labels / "train_labels").is_dir() else options.labels
    files = sorted(path for path in options.scores.iterdir() if path.suffix in (".npy", ".tif"))
    return [
        Case(path.stem, path, labels / f"{path.stem.removeprefix(options.prefix)}.tif")
        for path in files
        if path.stem.startswith(options.prefix)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--scores", type=Path, help="folder of probability maps")
    kind.add_argument("--planted", type=Path, help="folder of NRRD masks")
    parser.add_argument("--labels", type=Path, help="folder in the competition's layout, or of its label files")
    parser.add_argument("--prefix", default="", help="of the maps' names, before the id")
    parser.add_argument("--blur", type=float, default=0.0, help="standard deviation in voxels")
    parser.add_argument("--workflow", help="preset or file whose steps are the base chain")
    parser.add_argument("--rows", type=Path, help="YAML file of rows")
    parser.add_argument("--first", action="store_true", help="take the first alternative of every row")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.scores and not options.labels:
        parser.error("--scores needs --labels")
    base = read_chain(BASE)
    if options.workflow:
        base = tuple(
            json.dumps({name.partition("#")[0]: values})
            for item in load_workflow(options.workflow).resolved["postprocess"]
            for name, values in item.items()
        )
    rows = read_rows(options.rows.read_text() if options.rows else ROWS)
    if options.first:
        rows = [replace(row, alternatives=row.alternatives[:1]) for row in rows]
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))
    cases = cases_of(options)
    if not cases:
        parser.error("no volumes there")
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = Results(cases, pool)
        lines = ablate(results, base, rows)
    print(table(results, lines), choices(lines), sep="\n\n")


if __name__ == "__main__":
    main()
