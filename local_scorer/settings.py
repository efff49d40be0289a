"""What a run is made of, besides its entries; checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep.options import OptionError
from local_scorer.execution.job import DEVICES
from local_scorer.models.recipes import RECIPES, WIDTHS
from local_scorer.report import board
from local_scorer.runs.record import SETUPS


@dataclass(frozen=True)
class Settings:
    """What a run is made of, besides its entries.

    Attributes:
        data: folder of a prepared dataset.
        n_models: N, the number of unlearned and of retrained models.
        recipe: name of a recipe in `recipes.RECIPES`.
        width: channels in the stem of the ResNet-18.
        rules: "official" or "notebook".
        device: "cpu" or "cuda".
        seed: every job's seed follows from it.
        sandbox: "auto", "required" or "off": see `execution.sandbox`.
        setup: "competition": each entry runs N times from each of a few originals; "full": once from each of N.
        n_originals: K, original models of the competition set-up; the full one has N.
        reference: a pack that originals and retrained models come from; None to train them here.
        over_limit: let entries that are far over the time limit come to their end, for study.
        outputs: of the nets, at least the number of classes; None for one per class.
    """

    data: Path
    n_models: int = 10
    recipe: str = "quick"
    width: int = 16
    rules: str = "official"
    device: str = "cpu"
    seed: int = 0
    sandbox: str = "auto"
    setup: str = "competition"
    n_originals: int = 1
    reference: Path | None = None
    over_limit: bool = False
    outputs: int | None = None

    def __post_init__(self) -> None:
        if self.reference is not None and self.outputs is not None:
            raise OptionError("--outputs is of models that are trained here, not of those in a reference pack.")
        if self.n_models < 3:
            raise OptionError(f"--models must be at least 3, found {self.n_models}: fewer show no spread.")
        if self.n_originals < 1:
            raise OptionError(f"--originals must be at least 1, found {self.n_originals}.")
        if self.setup not in SETUPS:
            raise OptionError(f"Unknown set-up {self.setup!r}: expected one of {', '.join(SETUPS)}.")
        if self.setup == "full" and self.n_originals != self.n_models:
            raise OptionError(
                "--setup full runs once from each of N originals: expected as many originals as models, "
                f"{self.n_models}, found {self.n_originals}."
            )
        if self.recipe not in RECIPES:
            raise OptionError(f"Unknown recipe {self.recipe!r}: expected one of {', '.join(RECIPES)}.")
        if self.width not in WIDTHS:
            raise OptionError(f"--width must be one of {', '.join(map(str, WIDTHS))}, found {self.width}.")
        if self.rules not in board.RULES:
            raise OptionError(f"Unknown rules {self.rules!r}: expected one of {', '.join(board.RULES)}.")
        if self.device not in DEVICES:
            raise OptionError(f"--device must be cpu or cuda, found {self.device!r}.")
