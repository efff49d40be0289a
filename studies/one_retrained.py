"""What if only one model was really retrained, and the other N - 1 were that one plus noise?

    python -m studies.one_retrained --run runs/mufac32raw

Maria Gorinova's public notebook has one retrained model. Its N sets of outputs are that model's logits plus
normal noise with a tenth of the standard deviation of the unlearned models' logits. Here each of the N real
retrained models takes its turn as the one, and every entry is scored against the substitute and against the N
real ones. Scores are for comparison only: local_scorer always trains N models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet, Score, final_score
from local_scorer.report.board import RULES
from local_scorer.runs.record import CEILING, FLOOR, Run
from studies import frame

NOISE = 0.1  # of the standard deviation of the unlearned models' logits
COLUMNS = (
    "entry", "forgetting_quality", "score", "place", "substitute_quality", "substitute_score",
    "substitute_score_low", "substitute_score_high", "substitute_place_low", "substitute_place_high",
)  # fmt: skip


def main() -> None:
    """Score each entry against N retrained models and against the substitute."""
    parser = frame.parser("studies.one_retrained", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a leaderboard")
    parser.add_argument("--rules", choices=RULES, default="notebook")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    run = Run.open(args.run)
    models = {name: run.models(name) for name in (*run.readable, CEILING, FLOOR)}
    generator = np.random.default_rng(args.seed)
    real, faked = {}, {}
    for name, unlearned in models.items():
        real[name] = final_score(unlearned, run.retrained, args.rules)
        faked[name] = [
            final_score(unlearned, substitute(run.retrained, one, unlearned, generator), args.rules)
            for one in range(run.retrained.n_models)
        ]
    notes = [
        f"{args.rules.capitalize()} rules. Place: among the entries, references left out.",
        "One model: mean and range over which of the N retrained models is the one.",
    ]
    rows = list(compared(real, faked))
    frame.publish("studies.one_retrained", args.results, COLUMNS, rows, run.record.n_models, notes)


def substitute(retrained: ModelSet, one: int, unlearned: ModelSet, generator: np.random.Generator) -> ModelSet:
    """Return N "retrained" models made from number `one` and noise; their accuracies are that model's."""
    scale = NOISE * float(unlearned.logits.std())
    noise = generator.normal(0, scale, retrained.logits.shape).astype(np.float32)
    accuracies = {
        name: np.full(retrained.n_models, getattr(retrained, name)[one])
        for name in ("retain_accuracy", "forget_accuracy", "test_accuracy")
    }
    return replace(retrained, logits=retrained.logits[one] + noise, **accuracies)


def compared(real: dict[str, Score], faked: dict[str, list[Score]]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each entry, best real score first, references last."""
    references = (CEILING, FLOOR)
    entries = sorted((name for name in real if name not in references), key=lambda name: -real[name].score)
    orders = [
        sorted(entries, key=lambda name: -faked[name][one].score) for one in range(len(next(iter(faked.values()))))
    ]
    for name in (*entries, *references):
        scores = [score.score for score in faked[name]]
        quality = float(np.mean([score.forgetting_quality for score in faked[name]]))
        places = [order.index(name) + 1 for order in orders] if name in entries else []
        yield (
            name, real[name].forgetting_quality, real[name].score,
            entries.index(name) + 1 if places else None,
            quality, float(np.mean(scores)), min(scores), max(scores),
            min(places, default=None), max(places, default=None),
        )  # fmt: skip


if __name__ == "__main__":
    frame.exit_with(main)
