"""Do methods come in the order here that they have in tables that others published?

    python -m studies.correlation --boards builtin-all builtin-tuned

Spearman's rank correlation between a board's scores and the published ones, over the methods that both have. Its
interval redraws the methods with replacement, and each score from its own uncertainty: here the printed interval,
there what is known of the table's noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from studies import boards, frame
from studies.frame import RESULTS

PUBLISHED = {  # table below results/, and the standard deviation of one of its scores
    "private-leaderboard": 0.006,  # which teams report as the noise of one submission
    "published-nomus": 0.01,  # between the benchmark's README and its notebooks
}
NO_WINNERS = ("finetune", "ssd")  # on the private leaderboard
NOT_SCALED = ("contrastive",)  # a winner, older than the rule that scales the others
FEWEST = 5  # methods; with fewer, nothing is correlated
DRAWS = 10_000
ENDS = ("score_low", "score_high")
COLUMNS = ("board", "published", "methods", "rank_correlation", "rank_correlation_low", "rank_correlation_high")


def main() -> None:
    """Correlate boards with published tables."""
    parser = frame.parser("studies.correlation", __doc__)
    parser.add_argument("--boards", nargs="+", required=True, metavar="BOARD", help="folders below results/")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = []
    tables = {name: {row[0]: row[1] for row in frame.load(RESULTS / f"{name}.json").rows} for name in PUBLISHED}
    winners = {name: score for name, score in tables["private-leaderboard"].items() if name not in NO_WINNERS}
    scaled = {name: score for name, score in winners.items() if name not in NOT_SCALED}
    parts = {"private-leaderboard, winners": winners, "private-leaderboard, winners scaled by the rule": scaled}
    for published, known in (tables | parts).items():
        noise = PUBLISHED[published.partition(",")[0]]
        for board in args.boards:
            ours = dict(scores(board))
            names = [name for name in known if name in ours]
            if len(names) < FEWEST:
                continue
            theirs = np.array([known[name] for name in names])
            low, score, high = np.array([ours[name] for name in names]).T
            generator = np.random.default_rng(args.seed)
            deviations = (high - low) / (2 * stats.norm.ppf(0.975))
            interval = redrawn(score, deviations, theirs, noise, generator)
            rows.append((board, published, len(names), float(correlation(score, theirs)), *interval))
    frame.publish("studies.correlation", args.results, COLUMNS, rows)


def scores(board: str) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield the method behind each row of a board, with the low end, the score and the high end.

    A rejected method has no score and is left out.
    """
    for claim in boards.claims(RESULTS / board):
        found = claim["rules"]["official"]
        if claim["entry"] not in boards.REFERENCES and found["score"] is not None:
            low, high = (found[end] if found[end] is not None else found["score"] for end in ENDS)
            yield claim["entry"].partition(" ")[0], (low, found["score"], high)


def correlation(ours: ArrayLike, theirs: ArrayLike) -> np.ndarray:
    """Return Spearman's rank correlation along the last axis; NaN where all scores of a side are equal.

    >>> float(correlation([0.1, 0.2, 0.3], [1, 3, 2]))
    0.5
    """
    ranks = [stats.rankdata(scores, axis=-1) for scores in (ours, theirs)]
    one, two = (each - each.mean(axis=-1, keepdims=True) for each in ranks)
    with np.errstate(invalid="ignore"):
        return (one * two).sum(axis=-1) / np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))


def redrawn(
    ours: np.ndarray, deviations: np.ndarray, theirs: np.ndarray, noise: float, generator: np.random.Generator
) -> tuple[float, float]:
    """Return a 95 % interval of the rank correlation over methods and scores, each ``[n_methods]``.

    Args:
        deviations: standard deviations of our scores.
        noise: standard deviation of theirs.
    """
    chosen = generator.integers(0, len(ours), (DRAWS, len(ours)))
    here = np.maximum(0.0, generator.normal(ours, deviations, chosen.shape))
    there = generator.normal(theirs, noise, chosen.shape)
    drawn = [np.take_along_axis(scores, chosen, axis=1) for scores in (here, there)]
    low, high = np.nanquantile(correlation(*drawn), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    frame.exit_with(main)
