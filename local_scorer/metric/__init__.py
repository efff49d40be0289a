"""The metric: confidences, epsilons, points, forgetting quality and the final score. Needs no torch."""

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
