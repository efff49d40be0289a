"""What several test files share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: for nets this small, two threads are slower than one

import numpy as np
import pandas as pd
import pytest

from data_prep import dataset


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Folder of a prepared dataset: 108 pictures of 54 people, 8 classes, 32 px.

    A higher class is brighter, and each person has a pattern of their own, so there is something to learn and
    something to memorise.
    """
    random = np.random.default_rng(0)
    split = np.repeat(dataset.SPLITS, [64, 8, 12, 24])  # 32, 4, 6 and 12 people
    person = np.arange(len(split)) // 2
    group = person % 8
    age = 5 + 10 * group
    pattern = random.normal(0, 30, size=(person.max() + 1, 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)
    noise = random.normal(0, 10, size=(len(split), 3, 32, 32))
    images = 40 + 22 * group[:, None, None, None] + pattern[person] + noise
    examples = pd.DataFrame(
        {
            "image_id": [f"I{number:03d}" for number in range(len(split))],
            "person_id": [f"P{number:02d}" for number in person],
            "age_group": group,
            "age": age,
            "split": split,
            "source": "drawn",
        }
    )
    return dataset.write(
        tmp_path_factory.mktemp("data") / "tiny",
        images=images.clip(0, 255).astype(np.uint8),
        examples=examples,
        name="tiny",
        class_names=[f"{low}-{low + 9}" for low in range(0, 80, 10)],
        settings={"size": 32},
        seed=0,
        sources={},
    )
