"""How models are trained from scratch, and how wide they are. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

WIDTHS = (16, 32, 64)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained from scratch; the same for the original and for the retrained models.

    Attributes:
        optimizer: "adam" (coupled weight decay, `torch.optim.Adam`) or "sgd".
        schedule: "constant", "cosine" (to zero, one step an epoch) or "onecycle" (one step a batch).
        class_weights: "none", or "inverse_count" (1 / pictures of the class in the full training set).
        augment: random horizontal flip, rotation, shift and zoom, drawn anew for each picture.
    """

    name: str
    optimizer: str
    lr: float
    weight_decay: float
    epochs: int
    batch_size: int = 64
    momentum: float = 0.9
    schedule: str = "constant"
    class_weights: str = "none"
    augment: bool = False


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # google-deepmind/unlearning_evaluation, train_lib.py; last-epoch weights
        Recipe("competition", "adam", 1e-4, 5e-3, 30, schedule="cosine", class_weights="inverse_count"),
        # Report, section 5.2. It does not say whether it augments for MUFAC; that it does is our reading, taken
        # after one model each way: see docs/results/mufac32.md.
        Recipe("report", "adam", 5e-4, 5e-3, 36, augment=True),
        # A laptop's recipe: as short as memorising allows
        Recipe("quick", "adam", 3e-3, 5e-4, 14, schedule="onecycle"),
    )
}
