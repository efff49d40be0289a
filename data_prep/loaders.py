"""Loaders as the competition's notebook built them: dict batches of float32 pictures, 0 to 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.dataset import PreparedDataset


class FaceDataset(Dataset):
    """One split of a prepared dataset, map-style, in the order of its rows.

    Item i is a fresh dict: ``image`` float32 ``[3, H, W]`` with values 0 to 255, not normalised, ``image_id``
    str, ``age_group`` int, ``age`` int (-1 where unknown), ``person_id`` str. Nothing done to an item reaches
    a later access.
    """

    def __init__(self, data: PreparedDataset, split: str):
        rows = data.rows(split)
        self.images = torch.from_numpy(np.ascontiguousarray(data.images[rows]))
        names = ("image_id", "age_group", "age", "person_id")
        self._fields = list(zip(*(data.columns[name][rows].tolist() for name in names), strict=True))

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_id, age_group, age, person_id = self._fields[index]
        return {
            "image": self.images[index].float(),
            "image_id": image_id,
            "age_group": age_group,
            "age": age,
            "person_id": person_id,
        }


def loaders(data: PreparedDataset, batch_size: int = 64) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Return the retain, forget and validation loaders of the contract: shuffled, batch 64, no workers."""
    retain, forget, validation = (
        DataLoader(FaceDataset(data, split), batch_size=batch_size, shuffle=True)
        for split in ("retain", "forget", "validation")
    )
    return retain, forget, validation
