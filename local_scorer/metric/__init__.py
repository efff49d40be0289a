"""The metric, on arrays. Needs no torch.

The names below lead from logits to confidences, epsilons, points and forgetting quality; `quality` has them, and
`attacks` the attacks behind epsilon. `score` makes the final score of N unlearned and N retrained models, and
`clock` holds their times against the limit.
"""

from local_scorer.metric.quality import (
    BIN_WIDTH,
    NOTEBOOK_BINS,
    Rules,
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
    "epsilons",
    "forgetting_quality",
    "logit_scaled_confidence",
    "own_prediction_loss",
    "points",
    "strongest_attack",
]
