"""Judge what sites report on their own held-out images, and sum it up."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import RecordDict

from fedprompt.prompt_state import PromptState
from fedprompt.round_record import RoundRecord, SiteScore
from fedprompt.wire import ARRAYS, CONFIG, to_array_record
from server.gate.judge import capped, check_sender, is_count, loss_fault
from server.gate.limits import is_loss, weighted_mean, weights
from server.gate.replies import read_evaluate
from server.gate.verdict import Asked, Reason, Reply, Verdict, recorded, refuse
from server.joining.admission import Site
from server.rounds.exchange import exchange
from server.rounds.federation import Federation
from server.rounds.strategy_adapter import Instruction
from server.run_folder import run_status


@dataclass(frozen=True)
class Score:
    """Hold one site's result."""

    examples: int
    correct: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Return the share of correct images."""
        return self.correct / self.examples


def is_due(server_round: int, rounds: int, every: int) -> bool:
    """Tell whether a round is evaluated: the first and last always, others every so many."""
    return server_round in (0, rounds) or bool(every and server_round % every == 0)


def evaluate(
    federation: Federation, arrays: PromptState, server_round: int, without: Collection[int] = ()
) -> tuple[RoundRecord, list[Verdict]]:
    """Ask every site for its accuracy; return the record of it and the verdicts.

    ``without`` are the sites in quarantine: they have no say.
    """
    f, c = federation, federation.config
    sites = [site for site in f.roster.sites.values() if site.partition not in without]
    settings = Instruction(f.task.run, server_round, c.seed, len(sites)).record()
    content = RecordDict({ARRAYS: to_array_record(arrays, c.dtype), CONFIG: settings})
    contents = {site.node: content for site in sites}
    answers, traffic = exchange(f.grid, contents, "evaluate", c.deadline)
    names = {site.node: site.partition for site in sites}
    readings = []
    for answer in answers:
        with run_status.blaming(names[answer.node]):
            readings.append(read_evaluate(answer))
    scores, verdicts = judge_scores(readings, f.asked(sites, server_round))
    exchanged = RoundRecord(
        round=server_round,
        evaluation_verdicts=recorded(verdicts),
        evaluation_bytes_up=traffic.up,
        evaluation_bytes_down=traffic.down,
    )
    return summarise(scores, _weights(scores, sites), server_round) | exchanged, verdicts


def judge_scores(
    readings: Sequence[tuple[Reply, object]], asked: Mapping[int, Asked]
) -> tuple[dict[int, Score], list[Verdict]]:
    """Return the believable scores by site, and the verdicts on all other replies.

    Parameters
    ----------
    readings
        Each reply with the number of correct images it claims.
    asked
        What each asked node must answer.
    """
    correct = {id(reply): claimed for reply, claimed in readings}
    passed, verdicts = check_sender([reply for reply, _ in readings], asked)
    scores = {}
    for reply in passed:
        site = asked[reply.node].site
        with run_status.blaming(site):
            verdict, score = _believe(asked[reply.node], reply, correct[id(reply)])
        if score:
            scores[site] = score
        if verdict:
            verdicts.append(verdict)
    silent = asked.keys() - {reply.node for reply, _ in readings}
    verdicts += [
        refuse(asked[n].site, n, Reason.TIMEOUT, "no reply by the deadline") for n in silent
    ]
    return dict(sorted(scores.items())), sorted(verdicts, key=lambda v: (v.site is None, v.site))


def _weights(scores: Mapping[int, Score], sites: Sequence[Site]) -> dict[int, int]:
    """Return what each site's score weighs, so that a false count takes no average over."""
    enrolled = {site.partition: site.enrolled for site in sites}
    counts = {site: min(score.examples, enrolled[site]) for site, score in scores.items()}
    return weights(counts, {site.partition for site in sites if site.agreed})


def summarise(
    scores: Mapping[int, Score], most: Mapping[int, int], server_round: int
) -> RoundRecord:
    """Return the weighted accuracy, the worst site's and each site's own.

    A site weighs as much as the images it reports, and no more than ``most`` allows it.
    """
    weight = {site: min(score.examples, most[site]) for site, score in scores.items()}
    if not any(weight.values()):
        return RoundRecord(round=server_round, sites={})
    return RoundRecord(
        round=server_round,
        accuracy=weighted_mean((weight[s], scores[s].accuracy) for s in scores),
        worst_client_acc=min(score.accuracy for score in scores.values()),
        nll=weighted_mean((weight[s], scores[s].loss) for s in scores),
        sites={
            site: SiteScore(accuracy=s.accuracy, nll=s.loss, examples=s.examples)
            for site, s in scores.items()
        },
    )


def _believe(asked: Asked, reply: Reply, correct: object) -> tuple[Verdict | None, Score | None]:
    site, count, loss = asked.site, reply.count, reply.loss
    if not is_count(count) or not is_count(correct) or correct > count:
        detail = f"{correct!r} correct of {count!r} images"
        return refuse(site, reply.node, Reason.BAD_COUNT, detail), None
    if count == 0:
        return None, None  # nothing held out: the site has no say, and no fault
    if not is_loss(loss):
        return refuse(site, reply.node, *loss_fault(loss)), None
    verdict = capped(asked, reply.node, count) if count > asked.enrolled else None
    return verdict, Score(count, correct, float(loss))
