"""Protocols that tune on one machine's images, in CoOp's setting: 16 shots, 50 epochs."""

from client.features.adversarial_features import TEST
from fedprompt.data.image_set import ImageSet
from fedprompt.data.shots import few_shot as shots_of
from fedprompt.errors import ConfigError
from fedprompt.experiments.corruption import CORRUPTIONS, STRENGTHS
from fedprompt.experiments.protocols.trial import (
    Measured,
    Metrics,
    Protocol,
    TrainedMethod,
    Trial,
    accuracy_by_domain,
    harmonic_mean,
    mean,
)
from fedprompt.experiments.robustness import Sweep, adversarial_accuracy, corrupted_accuracy
from fedprompt.experiments.setup import open_experiment
from fedprompt.settings.section import Flat

COOP: Flat = {"data.shots": 16, "fit.epochs": 50}
BASE: Flat = {"data.subsample_classes": "base"}
NEW: Flat = {"data.subsample_classes": "new"}
SHOTS = (1, 2, 4, 8, 16)
# belong to a data set: a target must not inherit the source's
_DATASET_DEFAULTS: Flat = {"data.class_names": "", "data.subsample_classes": "all"}


def base_to_new(trial: Trial) -> Measured:
    """Tune on the base classes, test on base and on new ones (CoCoOp, arXiv 2203.05557).

    The first half of the class list is base. ``base_acc`` and ``new_acc`` are each within their
    own half; ``harmonic_mean`` is of the two.
    """
    method = trial.train_centrally("base", BASE)
    return Measured(base_and_new(method), method)


def base_and_new(method: TrainedMethod) -> Metrics:
    """Return the three metrics of a method that was tuned on the base classes."""
    base, new = method.accuracy(BASE), method.accuracy(NEW)
    return {"base_acc": base, "new_acc": new, "harmonic_mean": harmonic_mean(base, new)}


def calibration(trial: Trial) -> Measured:
    """Measure how well the confidence of a prompt matches its accuracy.

    Tuned on the base classes as in base-to-new. ``ece`` (15 bins, Guo et al. 2017) and ``nll``
    (nats) on test images of these classes; ``new_ece`` and ``new_nll`` on those of the new classes.
    """
    method = trial.train_centrally("base", BASE)
    metrics: Metrics = {}
    for prefix, half in (("", BASE), ("new_", NEW)):
        scores = method.scores(half)
        metrics |= {prefix + name: scores.get(name) for name in ("ece", "nll")}
    return Measured(metrics, method)


def few_shot(trial: Trial) -> Measured:
    """Tune on 1, 2, 4, 8 and 16 training images of each class (CoOp, arXiv 2109.01134).

    All classes; k shots contain the k - 1 before them; the test images are whole. Returns
    ``accuracy_1_shot`` to ``accuracy_16_shot``.
    """
    metrics: Metrics = {}
    for shots in SHOTS:
        method = trial.train_centrally(f"{shots}-shot", {"data.shots": shots})
        metrics[f"accuracy_{shots}_shot"] = method.accuracy({})
    return Measured(metrics, method)


def cross_dataset(trial: Trial) -> Measured:
    """Tune on one data set, test on others (CoCoOp, arXiv 2203.05557).

    The others have classes of their own; each is given by name and ``[data]`` settings
    (``--target``). Returns ``source_acc``, ``accuracy_NAME`` of each target, and ``target_acc``,
    their mean.

    Raises
    ------
    ConfigError
        There is no target.
    """
    if not trial.targets:
        raise ConfigError(
            "cross-dataset needs the data sets to test on; give --target FILE.toml for each, with "
            "a [data] section"
        )
    method = trial.train_centrally("source", {})
    source = method.accuracy({})
    targets: Metrics = {
        f"accuracy_{name}": method.accuracy(_DATASET_DEFAULTS | changes)
        for name, changes in trial.targets.items()
    }
    return Measured({"source_acc": source, "target_acc": mean(targets), **targets}, method)


def cross_domain(trial: Trial) -> Measured:
    """Tune in one domain, test in the others: CoOp's domain generalisation.

    The classes are the same. The first domain of ``data.source`` is the source; or, with
    ``--target``, the whole of it, and each target is another set of images of these classes, or of
    some of them. Returns ``source_acc``, ``target_acc`` and the accuracy in each domain.
    """
    if trial.targets:
        return cross_dataset(trial)
    data = trial.config.data

    def first_domain(images: ImageSet) -> ImageSet:
        """Return the first domain's images, or as many shots of them."""
        images = images.of_domain(0)
        return (
            images.subset(shots_of(images.labels, data.shots, data.seed)) if data.shots else images
        )

    method = trial.train_centrally("source", {"data.shots": 0}, first_domain)
    domains = accuracy_by_domain(method)
    source, *others = domains
    target = mean({name: domains[name] for name in others})
    return Measured({"source_acc": domains[source], "target_acc": target, **domains}, method)


def corruption(trial: Trial) -> Measured:
    """Tune on clean images, test on corrupted ones (`fedprompt.experiments.corruption`).

    Noise, blur, JPEG and low contrast, five strengths each, of the kinds that ImageNet-C published
    (arXiv 1903.12261). Twenty passes of the image tower over the test images: ``data.test_limit``
    bounds them. Returns ``accuracy`` on clean images, ``corruption_acc``, the mean over kinds, and
    each kind's.
    """
    method = trial.train_centrally("clean", {})
    experiment, prompt = open_experiment(method.config), method.as_trained()
    sweep = Sweep(batch=experiment.fit.encode_batch, max_pixels=experiment.data.max_pixels)
    kinds: Metrics = {}
    for kind in CORRUPTIONS:
        accuracies = [
            corrupted_accuracy(prompt, method.clip, experiment.test, kind, strength, sweep)
            for strength in STRENGTHS
        ]
        kinds[f"accuracy_{kind}"] = sum(accuracies) / len(accuracies)
    clean = method.accuracy({})
    return Measured({"accuracy": clean, "corruption_acc": mean(kinds), **kinds}, method)


def adversarial(trial: Trial) -> Measured:
    """Tune on clean images, test on attacked ones (AdvPT, arXiv 2311.11261).

    PGD-40 within 16/255. ``adversarial_acc``: the attack knows CLIP, not the prompt, as published;
    ``adaptive_acc``: it knows the prompt as well (ours), which is the honest figure. Eighty passes
    of the image tower over the test images, and back: ``data.test_limit`` bounds them.
    """
    method = trial.train_centrally("tuned", {})
    experiment, prompt = open_experiment(method.config), method.as_trained()
    metrics: Metrics = {"accuracy": method.accuracy({})}
    fit, data = experiment.fit, experiment.data
    sweep = Sweep(batch=fit.encode_batch, seed=data.seed, max_pixels=data.max_pixels)
    for name, adaptive in (("adversarial_acc", False), ("adaptive_acc", True)):
        metrics[name] = adversarial_accuracy(
            prompt, method.clip, experiment.test, TEST, sweep, adaptive=adaptive
        )
    return Measured(metrics, method)


CENTRALISED = {
    "base-to-new": Protocol(run=base_to_new, headline="harmonic_mean", defaults=COOP),
    "few-shot": Protocol(run=few_shot, headline="accuracy_16_shot", defaults=COOP),
    "cross-dataset": Protocol(run=cross_dataset, headline="target_acc", defaults=COOP),
    "cross-domain": Protocol(run=cross_domain, headline="target_acc", defaults=COOP),
    "calibration": Protocol(run=calibration, headline="ece", defaults=COOP),
    "corruption": Protocol(run=corruption, headline="corruption_acc", defaults=COOP),
    "adversarial": Protocol(run=adversarial, headline="adversarial_acc", defaults=COOP),
}
