"""The reference pack that comes with the repository."""

import numpy as np

from local_scorer import cli
from local_scorer.runs.pack import Pack


def test_the_shipped_pack_holds_as_many_different_models_as_it_says():
    opened = Pack(cli.PACK)
    header = opened.header
    assert (header.n_originals, header.n_models, header.width, header.seed) == (8, 512, 16, 0)
    assert header.recipe["name"] == "quick"
    answers = [opened.array(f"{kind}_forget_logits").reshape(512, -1) for kind in ("retrained", "ceiling")]
    assert len(np.unique(np.concatenate(answers), axis=0)) == 1024
    assert cli.PACK.stat().st_size <= 16_000_000


def test_every_array_of_the_shipped_pack_has_its_hash_and_is_finite():
    opened = Pack(cli.PACK)
    for name in opened.header.arrays:
        assert np.isfinite(opened.array(name)).all(), name
