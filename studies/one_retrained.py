"""What if only one model was really retrained, and the other N - 1 were that one plus noise?

    python -m studies.one_retrained --run runs/mufac32raw

Maria Gorinova's public notebook has one retrained model. Its N sets of outputs are that model's logits plus
normal noise with a tenth of the standard deviation of the unlearned models' logits. Here each of the N real
retrained models takes its turn as the one, and every entry is scored against the substitute and against the N
real ones. Scores are for comparison only: local_scorer always trains N models.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet, Score, final_score
from local_scorer.report import board as report
from local_scorer.runs.store import RunFolder, write_atomically

NOISE = 0.1  # of the standard deviation of the unlearned models' logits


def main() -> int:
    """Print each entry's score against N retrained models and against the substitute."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.one_retrained", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a leaderboard")
    parser.add_argument("--rules", choices=report.RULES, default="notebook")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the text here")
    args = parser.parse_args()
    folder = RunFolder(args.run)
    record = report.load_record(folder)
    retrained = report.models_of(folder, record.retrained)
    models = {entry["name"]: report.models_of(folder, entry["keys"]) for entry in record.entries if entry["keys"]}
    models[report.CEILING] = report.models_of(folder, record.ceiling)
    models[report.FLOOR] = report.models_of(folder, [record.original]).repeated(record.n_models)
    generator = np.random.default_rng(args.seed)
    real, faked = {}, {}
    for name, unlearned in models.items():
        real[name] = final_score(unlearned, retrained, args.rules)
        faked[name] = [
            final_score(unlearned, substitute(retrained, one, unlearned, generator), args.rules)
            for one in range(retrained.n_models)
        ]
    text = "\n".join(
        [
            f"python -m studies.one_retrained --run {args.run} --rules {args.rules} --seed {args.seed}",
            f"{args.rules} rules, N={record.n_models}. Place: among the entries, references left out.",
            "Substitute: mean and range over which of the N retrained models is the one.",
            "",
            f"{'':22}  {'N retrained models':^22}  {'one retrained model and noise':^45}",
            f"{'entry':22}  {'F':>6} {'score':>7} {'place':>5}  {'F':>9} {'score':>8} {'range':>15} {'place':>9}",
            *lines(real, faked),
        ]
    )
    print(text)
    if args.out:
        write_atomically(args.out, (text + "\n").encode())
    return 0


def substitute(retrained: ModelSet, one: int, unlearned: ModelSet, generator: np.random.Generator) -> ModelSet:
    """Return N "retrained" models made from number `one` and noise; their accuracies are that model's."""
    scale = NOISE * float(unlearned.logits.std())
    noise = generator.normal(0, scale, retrained.logits.shape).astype(np.float32)
    accuracies = {
        name: np.full(retrained.n_models, getattr(retrained, name)[one])
        for name in ("retain_accuracy", "forget_accuracy", "test_accuracy")
    }
    return replace(retrained, logits=retrained.logits[one] + noise, **accuracies)


def lines(real: dict[str, Score], faked: dict[str, list[Score]]) -> list[str]:
    """Return one line for each entry, best real score first, references last."""
    references = (report.CEILING, report.FLOOR)
    entries = sorted((name for name in real if name not in references), key=lambda name: -real[name].score)
    places = [
        sorted(entries, key=lambda name: -faked[name][one].score) for one in range(len(next(iter(faked.values()))))
    ]
    found = []
    for name in (*entries, *references):
        scores = [score.score for score in faked[name]]
        quality = np.mean([score.forgetting_quality for score in faked[name]])
        place, reached = "", ""
        if name in entries:
            place = str(entries.index(name) + 1)
            taken = sorted(order.index(name) + 1 for order in places)
            reached = f"{taken[0]} to {taken[-1]}"
        found.append(
            f"{name:22}  {real[name].forgetting_quality:6.4f} {real[name].score:7.4f} {place:>5}  "
            f"{quality:9.4f} {np.mean(scores):8.4f} {min(scores):7.4f}-{max(scores):7.4f} {reached:>9}"
        )
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
