"""The reference packs that come with the repository."""

import numpy as np
import pytest

from local_scorer import cli
from local_scorer.runs.pack import Pack

MUFAC = cli.PACK.with_name("mufac32-report.npz")


@pytest.mark.parametrize(
    ("path", "n_originals", "n_models", "recipe"), [(cli.PACK, 8, 512, "quick"), (MUFAC, 4, 64, "report")]
)
def test_a_shipped_pack_holds_as_many_different_models_as_it_says(path, n_originals, n_models, recipe):
    opened = Pack(path)
    header = opened.header
    assert (header.n_originals, header.n_models, header.width, header.seed) == (n_originals, n_models, 16, 0)
    assert header.recipe["name"] == recipe
    answers = [opened.array(f"{kind}_forget_logits").reshape(n_models, -1) for kind in ("retrained", "ceiling")]
    assert len(np.unique(np.concatenate(answers), axis=0)) == 2 * n_models
    assert path.stat().st_size <= 16_000_000


@pytest.mark.parametrize("path", sorted(cli.PACK.parent.glob("*.npz")), ids=lambda path: path.stem)
def test_every_array_of_a_shipped_pack_has_its_hash_and_is_finite(path):
    opened = Pack(path)
    for name in opened.header.arrays:
        assert np.isfinite(opened.array(name)).all(), name


def test_the_pack_of_real_faces_holds_outputs_only():
    opened = Pack(MUFAC)
    assert not opened.has_weights
    assert opened.array("weights").size == opened.array("images").size == 0
