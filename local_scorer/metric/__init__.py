"""The metric, on arrays. Needs no torch.

The names below lead from logits to confidences, epsilons, points and forgetting quality; `quality` has them,
`attacks` the attacks behind epsilon, and `search` finds the strongest of these. `score` makes the final score of
N unlearned and N retrained models, and `clock` holds their times against the limit.
"""

from local_scorer.metric.quality import (
    BIN_WIDTH,
    NOTEBOOK_BINS,
    Rules,
    attack_errors,
    epsilons,
    forgetting_quality,
    logit_scaled_confidence,
    own_prediction_loss,
    points,
    strongest_attack,
)

__all__ = [
    "BIN_WIDTH",
    "NOTEBOOK_BINS",
    "Rules",
    "attack_errors",
    "epsilons",
    "forgetting_quality",
    "logit_scaled_confidence",
    "own_prediction_loss",
    "points",
    "strongest_attack",
]
