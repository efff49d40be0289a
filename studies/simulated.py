"""Evaluations with a known truth: confidences of unlearned and retrained models drawn from known laws.

Each forget example has its own mean and standard deviation under the retrained models. A share of every
model's variance is its own and common to examples: a part for all of them, a part for each of four classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from local_scorer import metric
from local_scorer.metric.score import ModelSet

N_CLASSES = 4
FOR_ALL = 0.3  # of the common variance; the rest is common to a class
N_WAVES = 6
RETAIN, TEST = 0.9, 0.45  # mean accuracies of both kinds of model
ACCURACY_SD = 0.01


@dataclass(frozen=True)
class Case:
    """How unlearned models differ from retrained ones, in standard deviations of the latter.

    Attributes:
        shift, spread: mean shift, and ratio of standard deviations.
        varied: standard deviation over examples of the shift and of the log of the ratio.
        freedom: degrees of freedom of Student's t; inf is the normal distribution.
        common: share of the variance that is common to examples.
        skewed: a model's own part follows an exponential law, with its long tail on the right.
        smooth: what is common are waves over the forget set, and not a part for all and one for each class.
    """

    name: str
    shift: float = 0.0
    spread: float = 1.0
    varied: float = 0.0
    freedom: float = np.inf
    common: float = 0.2
    skewed: bool = False
    smooth: bool = False


CASES = (
    Case("perfect"),
    Case("shift 0.5", shift=0.5),
    Case("shift 1", shift=1.0),
    Case("shift 2", shift=2.0),
    Case("spread 0.5", spread=0.5),
    Case("heavy tails", freedom=3.0),
    Case("varied 0.5", varied=0.5),
    Case("strongly common", shift=0.5, common=0.5),
)


@dataclass(frozen=True)
class ForgetSet:
    """Forget examples of a case; `drawn` makes one, `evaluation` trains and unlearns N models."""

    case: Case
    mean: np.ndarray = field(repr=False)
    sd: np.ndarray = field(repr=False)
    shift: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    group: np.ndarray = field(repr=False)

    @classmethod
    def drawn(cls, case: Case, n_examples: int, generator: np.random.Generator) -> ForgetSet:
        return cls(
            case=case,
            mean=generator.normal(0, 2, n_examples),
            sd=1.5 * np.exp(generator.normal(0, 0.4, n_examples)),
            shift=case.shift + case.varied * generator.normal(size=n_examples),
            spread=case.spread * np.exp(case.varied * generator.normal(size=n_examples)),
            group=generator.integers(N_CLASSES, size=n_examples),
        )

    def evaluation(self, n_models: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return confidences of unlearned and of retrained models, ``[n_models, n_examples]`` each."""
        unlearned = self.mean + self.sd * (self.shift + self.spread * self._models(n_models, generator))
        return unlearned, self.mean + self.sd * self._models(n_models, generator)

    def quality(self, n_models: int, generator: np.random.Generator) -> float:
        """Return F of one evaluation."""
        return metric.forgetting_quality(metric.epsilons(*self.evaluation(n_models, generator)), n_models)

    def _models(self, n_models: int, generator: np.random.Generator) -> np.ndarray:
        shape = (n_models, len(self.mean))
        if self.case.skewed:
            own = generator.exponential(size=shape) - 1
        elif np.isfinite(self.case.freedom):
            own = generator.standard_t(self.case.freedom, shape)
            own *= np.sqrt((self.case.freedom - 2) / self.case.freedom)
        else:
            own = generator.normal(size=shape)
        return np.sqrt(1 - self.case.common) * own + np.sqrt(self.case.common) * self._common(n_models, generator)

    def _common(self, n_models: int, generator: np.random.Generator) -> np.ndarray:
        """Return what a model does to many examples, of variance 1: ``[n_models, n_examples]``."""
        if self.case.smooth:
            places = np.linspace(0, 1, len(self.mean))
            waves = np.cos(np.pi * np.outer(np.arange(N_WAVES), places)) / (1 + np.arange(N_WAVES))[:, None]
            return generator.normal(size=(n_models, N_WAVES)) @ (waves / np.sqrt((waves**2).sum(axis=0)))
        common = np.sqrt(FOR_ALL) * generator.normal(size=(n_models, 1))
        return common + np.sqrt(1 - FOR_ALL) * generator.normal(size=(n_models, N_CLASSES))[:, self.group]


def model_set(confidences: np.ndarray, generator: np.random.Generator) -> ModelSet:
    """Return models with these confidences, and accuracies drawn around `RETAIN` and `TEST`."""
    logits = np.zeros((*confidences.shape, 2), dtype=np.float32)
    logits[..., 0] = confidences
    n_models, n_examples = confidences.shape
    retain, forget, test = generator.normal([[RETAIN], [TEST], [TEST]], ACCURACY_SD, (3, n_models))
    seconds = np.ones(n_models)
    return ModelSet(logits, np.zeros(n_examples, dtype=np.int64), retain, forget, test, seconds, seconds)
