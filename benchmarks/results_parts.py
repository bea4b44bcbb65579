"""What docs/results.md shows, part by part: settings and cases of each, no figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from benchmarks.merging import PROTOCOL as MERGING
from fedprompt.experiments.protocols import PROTOCOLS, Protocol
from fedprompt.prompts.methods import METHODS, UNTRAINED, ZERO_SHOT
from fedprompt.settings.section import Flat, Scalar

Cases = dict[str, Flat]
Rates = Mapping[str, float]  # learning rate by case

SEEDS = (0, 1, 2)
FACTORED = ("vpt", "ivlp", "maple", "mudpt")  # also shown in the low-rank form
VISUAL = (*FACTORED, "sdpt", "promptsrc", "spt")  # need an image tower with tokens
ELSEWHERE = ("adapt", "advpt")  # for sites of one domain each; for attacked images
# what a method needs beyond its name, on any images
OWN: dict[str, Flat] = {"spt": {"prompt.start_noise": 0.1}}

FASHION: Flat = {
    "backbone.name": "embedded-cnn",
    "data.source": "fashion-mnist",
    "data.partitioner": "dirichlet",
    "data.alpha": 0.3,
    "data.clients": 10,
    "data.limit": 300,
    "data.shots": 0,
    "data.test_limit": 1000,
}
TEN_ROUNDS: Flat = {
    "server.rounds": 10,
    "server.evaluate_every": 0,
    "fit.epochs": 1,
    "fit.batch": 8,  # sites have some dozens of images
}
TOKENS: Flat = {"backbone.name": "embedded"}  # the embedded ViT
EMOJI: Flat = {
    **TOKENS,
    "data.source": "emoji",
    "data.partitioner": "domain",
    "data.clients": 4,
    "data.limit": 800,
    **TEN_ROUNDS,
}
RATES, VISUAL_RATES, EMOJI_RATES = "rates", "visual-rates", "emoji-rates"
SITES, ALPHAS = (10, 100), (0.1, 10.0)
DIP_AND_COOP = (("dip", "coop", "harmonic_mean"), ("dip", "coop", "new_acc"))
AGAINST_DIP = tuple(
    (other, "dip", "harmonic_mean")
    for other in ("dip-fixed", "rank 2", "rank 4", "random start", "density weight 1")
)
ADAPT_BY_CLASSES = "adapt, cross-entropy"
RULES = ("fresh-basis", "product", "factors", "shared-basis")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Hold one section of the page.

    Attributes
    ----------
    about
        How it is measured.
    cases
        Made when the learning rates are known.
    compare
        Pairs of cases and the metric in which the page sets the first against the second.
    rates
        Where the learning rates come from: the setting that they were chosen in.
    """

    title: str
    about: str
    name: str
    protocol: Protocol
    given: Flat
    cases: Callable[[Rates], Cases]
    compare: tuple[tuple[str, str, str], ...] = ()
    column: str = "method"
    layout: str = "table"
    rates: str = RATES


def case(rates: Rates, method: str, **own: Scalar) -> Flat:
    """Return the settings of ``method`` or ``method:form`` at its rate, and others of its own.

    ``prompt__rank`` stands for the key ``prompt.rank``.
    """
    name, _, form = method.partition(":")
    made: Flat = {"prompt.method": name, **OWN.get(name, {})}
    if form:
        made["prompt.form"] = form
    if method in rates:
        made["fit.learning_rate"] = rates[method]
    return made | {key.replace("__", "."): value for key, value in own.items()}


def text_methods(rates: Rates) -> Cases:
    """Return each method that leaves the image tower alone."""
    trained = [name for name in METHODS if name not in (*VISUAL, *ELSEWHERE)]
    return {name: case(rates, name) for name in (*UNTRAINED, *trained)}


def visual_methods(rates: Rates) -> Cases:
    """Return each method that prompts the image tower, in both forms, and three that do not."""
    names = (ZERO_SHOT, "dip", "coop", *VISUAL, *(f"{name}:lowrank" for name in FACTORED))
    return {name: case(rates, name) for name in names}


def ablation(rates: Rates) -> Cases:
    """Return dip with one thing changed at a time, all at dip's rate; others stand beside it."""
    random: Flat = {"prompt__init": "random", "prompt__tokens": 4}
    return {
        "dip": case(rates, "dip"),
        "dip-fixed": case(rates, "dip-fixed"),
        "rank 2": case(rates, "dip", prompt__rank=2),
        "rank 4": case(rates, "dip", prompt__rank=4),
        "random start": case(rates, "dip", **random),
        "density weight 1": case(rates, "dip", prompt__density_weight=1.0),
        "coop": case(rates, "coop"),
        "coop, random start": case(rates, "coop", **random),
    }


def merging_cases(rates: Rates) -> Cases:
    """Return dip, and the published one under the other rules, by number and kind of sites."""
    return {
        merging_case(rule, sites, alpha): case(
            rates,
            "dip" if rule == "fresh-basis" else "dip-fixed",
            server__rule=rule,
            data__clients=sites,
            data__alpha=alpha,
        )
        for rule in RULES
        for sites in SITES
        for alpha in ALPHAS
    }


def merging_case(rule: str, sites: int, alpha: float) -> str:
    """Return the name of one case."""
    return f"{rule}, {sites} sites, alpha {alpha:g}"


def domain_cases(rates: Rates) -> Cases:
    """Return what is tuned over sites of one domain each."""
    names = (ZERO_SHOT, "coop", "dip", "adapt")
    made = {name: case(rates, name) for name in names}
    own: Flat = {"prompt.method": "adapt", "prompt.objective": "cross-entropy"}
    if ADAPT_BY_CLASSES in rates:
        own["fit.learning_rate"] = rates[ADAPT_BY_CLASSES]
    return made | {ADAPT_BY_CLASSES: own}


def personal_cases(rates: Rates) -> Cases:
    """Return whose prompt it is, for coop and dip."""
    made: Cases = {ZERO_SHOT: case(rates, ZERO_SHOT)}
    for name in ("coop", "dip"):
        for whose in ("global", "local", "both"):
            made[f"{name}, {whose}"] = case(rates, name, prompt__personal=whose)
    return made


def parts(natural: Flat | None) -> list[Part]:
    """Return all parts; ``natural`` names the unseen classes' images, if they are there."""
    found = [_fashion(), _fashion_ablation()]
    if natural is not None:
        found.append(_natural(natural))
    return [*found, _visual(), _emoji(), _merging(), _personal()]


def _fashion() -> Part:
    return Part(
        title="Fashion-MNIST: text prompts and heads, base to new",
        about=(
            "Base: the first five classes, new: the last five. Ten sites, Dirichlet(0.3), 300 "
            "training images of the base classes in all, a fifth of them held out by the sites "
            "(`local_acc`), 10 rounds of one epoch in batches of 8; 1,000 test images of each half."
        ),
        name="fashion",
        protocol=PROTOCOLS["federated-base-to-new"],
        given=FASHION | TEN_ROUNDS,
        cases=text_methods,
        compare=DIP_AND_COOP,
    )


def _fashion_ablation() -> Part:
    return replace(
        _fashion(),
        title="Fashion-MNIST: what dip is made of",
        about="As above; one thing changed at a time, at dip's learning rate; dip-fixed and coop "
        "at their own.",
        name="fashion-ablation",
        cases=ablation,
        column="case",
        compare=AGAINST_DIP,
    )


def _natural(given: Flat) -> Part:
    return Part(
        title="Fifty unseen natural classes: text prompts and heads, base to new",
        about=(
            "The 50 classes of Tiny-ImageNet that the embedded backbone never saw; base: the first "
            "25. Ten sites with base classes of their own, 16 shots, a fifth of them held out, 10 "
            "rounds of one epoch in batches of 8; 50 test images a class."
        ),
        name="natural",
        protocol=PROTOCOLS["federated-base-to-new"],
        given=given | TEN_ROUNDS | {"backbone.name": FASHION["backbone.name"]},
        cases=text_methods,
        compare=DIP_AND_COOP,
    )


def _merging() -> Part:
    return Part(
        title="How low-rank prompts are merged",
        about=(
            "dip (`fresh-basis`) and dip-fixed (the other rules) on all ten classes of "
            "Fashion-MNIST, 1,000 training images divided by Dirichlet(alpha) among the sites, 10 "
            "rounds of one epoch in batches of 8, 1,000 test "
            "images. The truncation error is what merging lost, relative to what was to be merged, "
            "mean over the rounds. Of 100 sites each has one or two steps a round."
        ),
        name="merging",
        protocol=MERGING,
        given=FASHION | TEN_ROUNDS | {"data.limit": 1000},
        cases=merging_cases,
        layout="merging",
    )


def _visual() -> Part:
    return replace(
        _fashion(),
        title="Fashion-MNIST: prompts of the image tower, base to new",
        about="As the first part, on the backbone `embedded`, whose image tower takes tokens, with "
        "rates chosen on it.",
        name="visual",
        given=FASHION | TEN_ROUNDS | TOKENS,
        cases=visual_methods,
        rates=VISUAL_RATES,
        compare=tuple((name, "coop", "harmonic_mean") for name in ("dip", "vpt")),
    )


def _emoji() -> Part:
    return Part(
        title="Four hands: sites of one domain each",
        about=(
            "Emoji of 37 kinds by four vendors on the backbone `embedded`, a site for each vendor, "
            "800 training images in all, 10 rounds of one epoch in batches of 8, rates chosen on "
            "emoji; all test images of each vendor under the merged prompt. ADAPT's own objective "
            "has no negatives: it draws each class to its images and none away from the others', "
            "so a small backbone may lose its classes on the way; the last row trains the same "
            "prompts by cross-entropy."
        ),
        name="emoji",
        protocol=PROTOCOLS["multi-domain"],
        given=EMOJI,
        cases=domain_cases,
        rates=EMOJI_RATES,
        compare=tuple(
            (name, "coop", metric)
            for name in ("adapt", ADAPT_BY_CLASSES)
            for metric in ("accuracy", "worst_domain_acc")
        ),
    )


def _personal() -> Part:
    return Part(
        title="Whose prompt it is",
        about=(
            "Fashion-MNIST, all ten classes, ten sites by Dirichlet(0.3), 600 training images, 10 "
            "rounds of one epoch in batches of 8. `local_acc`: each site on its held-out images, "
            "under its own prompt where it has one; `global_acc`: the merged prompt on 1,000 test "
            "images."
        ),
        name="personal",
        protocol=PROTOCOLS["personal"],
        given=FASHION | TEN_ROUNDS | {"data.limit": 600},
        cases=personal_cases,
        column="case",
        compare=tuple(
            (f"{name}, {whose}", f"{name}, global", "local_acc")
            for name in ("coop", "dip")
            for whose in ("local", "both")
        ),
    )
