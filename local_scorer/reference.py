"""Make and check reference packs: originals and retrained models that everybody can score against.

`make` trains what `local_scorer.runs.pack` describes and can be interrupted at any time: finished models stay in
the run folder. `check` trains a few of a pack's models at home and says whether they could be the pack's.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

import data_prep.dataset
from data_prep.dataset import PreparedDataset
from local_scorer import metric
from local_scorer.execution import checkpoint, pool, steps
from local_scorer.execution.job import Job
from local_scorer.models import nets
from local_scorer.models.recipes import RECIPES, WIDTHS, Recipe
from local_scorer.runs import pack, store
from local_scorer.runs.pack import AUDITED, FEWEST_MODELS, KINDS, MARGINS, SPLITS, Header, Pack
from local_scorer.runs.store import JobResult, RunFolder

LEAST_CHANCE = 0.001  # below, a home-trained model is said not to come from the pack's population
ROUNDING = 0.05  # by which confidences of one model may differ between two processors, on average

Parameters = tuple[tuple[str, tuple[int, ...]], ...]  # name and shape of each weight


@dataclass(frozen=True)
class Finding:
    """One check of a pack: what was looked at, whether it passed, and what was found."""

    name: str
    passed: bool
    text: str


def base_job(data: Path, recipe: str, width: int, seed: int, device: str) -> Job:
    """Return the job that trains the first original on a prepared data set.

    Raises:
        ValueError: the data set cannot be used, or there is no such recipe or width.
    """
    if recipe not in RECIPES:
        raise ValueError(f"Unknown recipe {recipe!r}: expected one of {', '.join(RECIPES)}.")
    if width not in WIDTHS:
        raise ValueError(f"--width must be one of {', '.join(map(str, WIDTHS))}, found {width}.")
    opened = data_prep.dataset.load(data)
    return Job(
        role="original",
        index=0,
        data=str(Path(data).absolute()),
        fingerprint=opened.fingerprint,
        recipe=RECIPES[recipe],
        width=width,
        seed=seed,
        device=device,
    )


def plan(base: Job, n_models: int, n_originals: int) -> list[Job]:
    """Return the jobs whose results a pack holds; originals first."""
    jobs = [replace(base, role="original", index=index) for index in range(n_originals)]
    return jobs + [
        replace(base, role=role, index=i) for i in range(n_models) for role in ("retrained", "ceiling")
    ]


def make(
    base: Job,
    folder: RunFolder,
    out: Path,
    engine: pool.Engine,
    n_models: int,
    n_originals: int,
    command: str,
    outputs_only: bool = False,
    show_progress: bool = True,
) -> Path:
    """Train what is missing and write the pack.

    Args:
        base: data, recipe, width, seed and device of the models.
        outputs_only: leave out the weights and the pictures, for data that must not be passed on.

    Raises:
        ValueError: the data set cannot be used, or the models are too few to score against.
        OSError: nothing can be written where the pack is to lie.
        RuntimeError: a training failed.
    """
    if n_models < FEWEST_MODELS:
        raise ValueError(f"A pack needs {FEWEST_MODELS} retrained models or more: --models is {n_models}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK) or out.is_dir():  # before hours of training, not after
        raise OSError(f"{out} cannot be written.")
    jobs = plan(base, n_models, n_originals)
    _train(jobs, folder, engine, show_progress)
    data = steps.open_data(base)
    results = {kind: [folder.load_result(job.key) for job in jobs if job.role == kind] for kind in KINDS}
    parameters: Parameters = ()
    weights = np.empty((n_originals, 0), np.float16)
    if not outputs_only:
        parameters, weights = _rounded([job for job in jobs if job.role == "original"], folder)
        results["original"] = [
            _answers(_net(base, data, parameters, flat), data, result)
            for flat, result in zip(weights, results["original"], strict=True)
        ]
    arrays = {"weights": weights, "images": _no_pictures(data) if outputs_only else np.asarray(data.images)}
    for split in SPLITS:
        arrays[f"{split}_labels"] = data.labels(split)
    for kind in KINDS:
        arrays |= {f"{kind}_{name}": array for name, array in _outputs(results[kind]).items()}
    header = _header(base, data, parameters, n_models, n_originals, command)
    return pack.write(out, header, arrays)


def check(
    opened: Pack, data: Path, device: str, folder: RunFolder, engine: pool.Engine, n_models: int = 2
) -> list[Finding]:
    """Train `n_models` of a pack's retrained models and as many of its ceiling models at home and compare.

    Which ones is drawn anew each time, so that nobody who forges a pack knows which to leave as they were: a share
    s of forged models goes unnoticed with chance (1 - s)^(2 n_models).

    On equal hardware and software they are equal to the bit. Elsewhere each is held against the pack's population:
    how far its confidences lie from the mean model's, and its accuracies, must not be rarer than `LEAST_CHANCE`.

    Args:
        data: folder of the prepared dataset that the pack was made from, as it is drawn here.

    Raises:
        ValueError: the pack is of other data, or has fewer models.
        RuntimeError: a training failed.
    """
    if n_models > opened.header.n_models:
        raise ValueError(f"{opened.path} has {opened.header.n_models} retrained models: --models may not be more.")
    arrays = _check_arrays(opened)
    if not arrays.passed:
        return [arrays]
    data, pictures = data_of(opened, data)
    base = base_of(opened, data, device)
    findings = [
        arrays,
        Finding("pictures", True, pictures or "equal to the bit"),
        _check_originals(opened, base),
    ]
    drawn = sorted(secrets.SystemRandom().sample(range(opened.header.n_models), n_models))
    jobs = [replace(base, role=role, index=index) for index in drawn for role in ("retrained", "ceiling")]
    _train(jobs, folder, engine)
    return findings + [_check_model(opened, job, folder.load_result(job.key)) for job in jobs]


def base_of(opened: Pack, data: Path, device: str) -> Job:
    """Return the job that trains a pack's first original anew.

    Raises:
        ValueError: the pack was made from other data, or by a recipe of another version.
    """
    header = opened.header
    try:
        recipe = Recipe(**header.recipe)
    except TypeError as error:
        raise ValueError(
            f"{opened.path} was made by a recipe that this version does not know ({error})."
        ) from error
    fingerprint = data_prep.dataset.load(data).fingerprint
    if fingerprint != header.fingerprint:
        raise ValueError(f"{opened.path} was made from other data ({header.data}) than {data}.")
    return Job(
        "original", 0, str(Path(data).absolute()), fingerprint, recipe, header.width, header.seed, device
    )


def data_of(opened: Pack, data: Path) -> tuple[Path, str]:
    """Return a folder with exactly the pack's pictures, and a sentence if they differ from those drawn here.

    The built-in set is drawn by arithmetic that another processor may round differently. A pack carries its
    pictures; where the ones at home differ, they are laid beside them and used instead.

    Raises:
        ValueError: the data at home are another set.
    """
    home = data_prep.dataset.load(data)
    header = opened.header
    if home.fingerprint == header.fingerprint:
        return Path(data), ""
    pictures = opened.array("images")
    if home.name != header.data or pictures.shape != home.images.shape:
        kept = "" if len(pictures) else ", or from pictures that differ by a bit, which it does not hold"
        raise ValueError(f"{opened.path} was made from other data ({header.data}) than {data}{kept}.")
    beside = Path(data).with_name(f"{Path(data).name}-of-pack-{header.fingerprint[:8]}")
    if not beside.exists():
        manifest = home.manifest
        data_prep.dataset.write(
            beside,
            images=pictures,
            examples=home.examples,
            name=home.name,
            class_names=home.class_names,
            settings=manifest["settings"],
            seed=manifest["seed"],
            sources=manifest["sources"],
        )
    if data_prep.dataset.load(beside).fingerprint != header.fingerprint:
        raise ValueError(f"{opened.path} was made from other data ({header.data}) than {data}.")
    changed = int((pictures != home.images).any(axis=(1, 2, 3)).sum())
    return (
        beside,
        f"{changed} of {len(pictures)} pictures drawn here differ from the pack's: {beside} holds the pack's.",
    )


def _train(jobs: Sequence[Job], folder: RunFolder, engine: pool.Engine, show_progress: bool = True) -> None:
    progress = pool.Progress(len(jobs), sum(job.is_done(folder) for job in jobs), engine.slots, show_progress)
    try:
        pool.run(jobs, folder, engine, progress)
    finally:
        progress.close()


def _rounded(originals: Sequence[Job], folder: RunFolder) -> tuple[Parameters, np.ndarray]:
    """Return names and shapes of the weights, and the weights of all originals in half precision."""
    states = [checkpoint.read_state_dict(folder.weights_path(job.key)) for job in originals]
    parameters = tuple((name, tuple(tensor.shape)) for name, tensor in states[0].items())
    return parameters, np.stack([_flat(state) for state in states])


def _header(
    base: Job, data: PreparedDataset, parameters: Parameters, n_models: int, n_originals: int, command: str
) -> Header:
    """Return what a pack says of itself; the hashes of its arrays are filled in when it is written."""
    return Header(
        data=data.name,
        fingerprint=data.fingerprint,
        images_sha256=data.manifest["sha256"]["images.npy"],
        class_names=tuple(data.class_names),
        recipe=asdict(base.recipe),
        width=base.width,
        seed=base.seed,
        n_models=n_models,
        n_originals=n_originals,
        parameters=parameters,
        environment=asdict(store.environment()),
        command=command,
        date=date.today().isoformat(),
        arrays={},
    )


def put_originals(opened: Pack, folder: RunFolder) -> list[str]:
    """Write the originals of a pack into a run folder; return the hashes that they are stored under."""
    hashes = []
    for index in range(opened.header.n_originals):
        state = {name: torch.from_numpy(np.array(array)) for name, array in opened.weights(index).items()}
        digest = store.content_key({"pack": opened.header.arrays["weights"], "original": index})
        path = folder.weights_path(digest)
        if not path.is_file():
            steps.save_weights(state, path)
        hashes.append(digest)
    return hashes


def _outputs(results: Sequence[JobResult]) -> dict[str, np.ndarray]:
    """Stack what a pack keeps of the models of one kind."""
    found = {
        "forget_logits": np.stack([result.logits["forget"] for result in results]),
        "test_logits": np.stack([result.logits["test"] for result in results[:AUDITED]]).astype(np.float16),
        "retain_confidence": np.stack([result.retain_confidence for result in results[:MARGINS]]).astype(
            np.float16
        ),
        "validation_confidence": np.stack(
            [
                metric.logit_scaled_confidence(result.logits["validation"], result.labels["validation"])
                for result in results[:MARGINS]
            ]
        ).astype(np.float16),
        "wall_seconds": np.array([result.wall_seconds for result in results]),
        "cpu_seconds": np.array([result.cpu_seconds for result in results]),
    }
    return found | {
        f"{split}_accuracy": np.array([result.accuracy[split] for result in results]) for split in SPLITS
    }


def _flat(state: dict[str, torch.Tensor]) -> np.ndarray:
    """Return a state dict as one row of half precision.

    Batch counters, which no forward pass uses, are cut to what half precision can count to.
    """
    return (
        torch.cat([tensor.float().flatten().clamp(-65504, 65504) for tensor in state.values()]).half().numpy()
    )


def _net(base: Job, data: PreparedDataset, parameters: Parameters, flat: np.ndarray) -> torch.nn.Module:
    net = nets.empty_net(data.n_classes, base.width)
    parts = np.split(flat, np.cumsum([int(np.prod(shape)) for _, shape in parameters])[:-1])
    state = {
        name: torch.from_numpy(part.reshape(shape))
        for part, (name, shape) in zip(parts, parameters, strict=True)
    }
    net.load_state_dict(state)
    return net.eval()


def _answers(net: torch.nn.Module, data: PreparedDataset, trained: JobResult) -> JobResult:
    """Return the result of an original as the pack has it, rounded; its training time stays."""
    logits, accuracy = {}, {}
    for split in SPLITS:
        images = torch.from_numpy(np.ascontiguousarray(data.images[data.rows(split)]))
        logits[split] = nets.predict_logits(net, images).numpy()
        accuracy[split] = float((logits[split].argmax(axis=1) == data.labels(split)).mean())
    confidence = metric.logit_scaled_confidence(logits["retain"], data.labels("retain")).astype(np.float32)
    kept = {split: logits[split] for split in trained.logits}
    return replace(trained, logits=kept, accuracy=accuracy, retain_confidence=confidence)


def _no_pictures(data: PreparedDataset) -> np.ndarray:
    return np.empty((0, 3, data.size, data.size), np.uint8)


def _check_arrays(opened: Pack) -> Finding:
    """Every array has its hash, and accuracies follow from the logits beside them."""
    header = opened.header
    try:
        arrays = {name: opened.array(name) for name in header.arrays}
        for kind in KINDS:
            n_models = header.n_originals if kind == "original" else header.n_models
            logits, labels = arrays[f"{kind}_forget_logits"], arrays["forget_labels"]
            if logits.shape != (n_models, len(labels), len(header.class_names)):
                raise ValueError(f"the array {kind}_forget_logits has the shape {logits.shape}")
            found = (logits.argmax(axis=2) == labels).mean(axis=1)
            if not np.array_equal(found, arrays[f"{kind}_forget_accuracy"]):
                raise ValueError(
                    f"the accuracies of {kind} models on the forget set are not those of their logits"
                )
    except (ValueError, KeyError) as error:
        return Finding("arrays", False, f"{opened.path}: {error}")
    return Finding(
        "arrays", True, f"{len(header.arrays)} arrays have their hashes, and accuracies fit the logits."
    )


def _check_originals(opened: Pack, base: Job) -> Finding:
    """The weights give the answers that the pack states for the originals."""
    if not opened.has_weights:
        return Finding("originals", True, "The pack holds outputs only: originals are trained at home.")
    data = steps.open_data(base)
    images = torch.from_numpy(np.ascontiguousarray(data.images[data.rows("forget")]))
    stated = opened.array("original_forget_logits")
    for index, flat in enumerate(opened.array("weights")):
        logits = nets.predict_logits(_net(base, data, opened.header.parameters, flat), images).numpy()
        apart = float(np.abs(logits - stated[index]).mean())
        if not apart < ROUNDING:
            return Finding(
                "originals", False, f"Original {index} answers {apart:.3f} off what the pack states."
            )
    return Finding("originals", True, f"{index + 1} originals answer as the pack states.")


def _check_model(opened: Pack, job: Job, result: JobResult) -> Finding:
    name = f"{job.role} {job.index}"
    logits = opened.array(f"{job.role}_forget_logits")
    if np.array_equal(result.logits["forget"], logits[job.index]):
        off = _stated_otherwise(opened, job, result)
        return Finding(name, not off, off or "equal to the bit")
    labels = opened.array("forget_labels")
    population = np.concatenate([opened.array(f"{role}_forget_logits") for role in ("retrained", "ceiling")])
    confidences = metric.logit_scaled_confidence(population, labels)
    ours = metric.logit_scaled_confidence(result.logits["forget"], labels)
    centre, spread = confidences.mean(axis=0), confidences.std(axis=0, ddof=1)
    statistics = {
        "distance of its confidences": (
            ((ours - centre) / spread) ** 2,
            ((confidences - centre) / spread) ** 2,
        ),
        "mean confidence": ((ours - centre) / spread, (confidences - centre) / spread),
    }
    chances = {what: _chance(mine.mean(), theirs.mean(axis=1)) for what, (mine, theirs) in statistics.items()}
    for split in SPLITS:
        known = np.concatenate([opened.array(f"{role}_{split}_accuracy") for role in ("retrained", "ceiling")])
        chances[f"{split} accuracy"] = _chance(result.accuracy[split], known)
    what, chance = min(chances.items(), key=lambda item: item[1])
    passed = chance >= LEAST_CHANCE
    could = "could" if passed else "could hardly"
    return Finding(name, passed, f"another model than the pack's; it {could} come from its population ({what}: "
                                 f"chance {chance:.2g})")  # fmt: skip


def _stated_otherwise(opened: Pack, job: Job, result: JobResult) -> str:
    """Return what a pack states of a model that the same one, trained at home, does not have; "" if nothing."""
    for name, ours in _outputs([result]).items():
        stated = opened.array(f"{job.role}_{name}")
        if name.endswith("seconds") or job.index >= len(stated):  # others' clocks; kept of the first models alone
            continue
        if not np.allclose(ours[0], stated[job.index], rtol=0, atol=ROUNDING, equal_nan=True):
            return f"equal on the forget set, but its {name.replace('_', ' ')} is not what the pack states"
    return ""


def _chance(value: float, population: np.ndarray) -> float:
    """Return the two-sided chance of a value this far off, by the normal law of the population."""
    from scipy.special import ndtr

    spread = float(population.std(ddof=1))
    distance = (
        abs(value - float(population.mean())) / spread
        if spread > 0
        else (0.0 if value == population[0] else 99)
    )
    return float(2 * ndtr(-distance))
