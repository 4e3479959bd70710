"""A real nnU-Net folder: planned, preprocessed and trained by nnunetv2 itself, as small as it goes."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import tifffile

from tests.conftest import sheets

DATASET = "Dataset947_Tiny"
PATCH_ZYX = (16, 20, 24)


def train_folder(root, monkeypatch, folds=(0, 1)):
    """Train a few iterations of two folds and return the folder ``nnUNetTrainer__nnUNetPlans__3d_fullres``."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(root / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    # nnU-Net plans and preprocesses in fresh processes; importing torch in each of them takes longer than all the rest.
    monkeypatch.setattr(multiprocessing, "get_context", lambda *_: SimpleNamespace(Pool=ThreadPool))
    _write_dataset(root / "raw" / DATASET)
    _plan(root / "preprocessed" / DATASET)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # augment in this process
    for fold in folds:
        _train(root / "preprocessed" / DATASET, fold)
    return root / "results" / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"


def _write_dataset(folder):
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for seed in range(3):
        image = sheets((32, 32, 32), seed)
        labels = (image > 140).astype(np.uint8)
        labels[:2] = 2
        tifffile.imwrite(folder / "imagesTr" / f"case{seed}_0000.tif", image)
        tifffile.imwrite(folder / "labelsTr" / f"case{seed}.tif", labels)
        for side in ("imagesTr", "labelsTr"):
            (folder / side / f"case{seed}.json").write_text(json.dumps({"spacing": [1, 1, 1]}))
    described = {
        "channel_names": {"0": "scan"},
        "labels": {"background": 0, "surface": 1, "ignore": 2},
        "numTraining": 3,
        "file_ending": ".tif",
        "overwrite_image_reader_writer": "Tiff3DIO",
    }
    (folder / "dataset.json").write_text(json.dumps(described))


def _plan(folder):
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprints([947], num_processes=1, verbose=False, show_progress_bar=False)
    api.plan_experiments([947])
    path = folder / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= {"patch_size": PATCH_ZYX, "batch_size": 2}
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
    }
    path.write_text(json.dumps(plans))
    api.preprocess_dataset(947, configurations=("3d_fullres",), num_processes=(1,), show_progress_bar=False)
    splits = [{"train": ["case0", "case1"], "val": ["case2"]}, {"train": ["case1", "case2"], "val": ["case0"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))


def _train(folder, fold):
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(fold)
    np.random.seed(fold)  # noqa: NPY002 (what nnU-Net draws from)
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    dataset = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "3d_fullres", fold, dataset, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 8, 1
    trainer.run_training()
