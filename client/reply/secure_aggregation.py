"""Mask this site's update with Flower's SecAgg+, so that the server learns a sum (F29).

Flower's own mod does the protocol. Here is what it must not be asked: a plain reply where masking
was agreed, other ranges than agreed, a threshold that a minority reaches, or both shares of a site,
which together would unmask its update alone.
"""

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    RECORD_KEY_STATE,
    Key,
    Stage,
)
from flwr.compat.common.recorddict_compat import fitres_to_recorddict

from fedprompt.errors import ConfigError
from fedprompt.prompt_state import PromptState, difference
from fedprompt.secure_sum import MODULUS, agreed_clip, flatten, levels, shorten
from fedprompt.wire import ARRAYS, METRICS, from_array_record

_LEAST_SHARES = 3  # and as many sites: of two, each finds the other's update by subtraction


def secured(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Answer a stage of the protocol where the run agreed on it; pass other runs' messages on.

    Raises
    ------
    ConfigError
        The server asks for more than the protocol may.
    """
    if not context.run_config.get("server.secure_aggregation", False):
        return call_next(message, context)
    asked = message.content.config_records.get(RECORD_KEY_CONFIGS)
    if asked is None:
        raise ConfigError(
            "the server asks for an update in the clear, though the run has "
            "server.secure_aggregation = true; nothing was sent"
        )
    clip = agreed_clip(context.run_config)
    check(asked, clip)

    def masked(inner: Message, inner_context: Context) -> Message:
        reply = call_next(inner, inner_context)
        steps = context.state.config_records[RECORD_KEY_STATE]["target_range"]
        return Message(
            to_fit_result(inner.content, reply.content, clip, int(str(steps))), reply_to=inner
        )

    return secaggplus_mod(message, context, masked)


def check(asked: ConfigRecord, clip: float) -> None:
    """Refuse a stage's request that would weaken the sum's protection.

    Raises
    ------
    ConfigError
        Says what was asked and what may be.
    """
    stage = asked.get(Key.STAGE)
    if stage == Stage.SETUP:
        _check_setup(asked, clip)
    elif stage == Stage.UNMASK:
        active, dead = (_nodes(asked, k) for k in (Key.ACTIVE_NODE_ID_LIST, Key.DEAD_NODE_ID_LIST))
        if both := active & dead:
            raise ConfigError(
                f"the server calls {len(both)} sites alive and gone at once, which would unmask "
                "their updates; no share was sent"
            )


def to_fit_result(sent: RecordDict, reply: RecordDict, clip: float, steps: int) -> RecordDict:
    """Return a train reply as the protocol takes it: the shortened change, weight 1 or 0.

    Parameters
    ----------
    sent
        The train message's content.
    reply
        What the site would have sent in the clear.
    clip
        L2 norm the change is cut to, in the space that is averaged.
    steps
        Of the quantiser, as agreed in the setup stage.
    """
    current, trained = (_unpack(content) for content in (sent, reply))
    before = current.unmoved(trained).given_to(trained, _dtype(sent))
    metrics = reply.metric_records[METRICS]
    weight = int(bool(metrics["num-examples"]))
    change = flatten(difference(trained.lift(), before.lift()))
    vector = shorten(change, clip, steps) if weight else np.zeros_like(change)
    result = FitRes(
        status=Status(Code.OK, ""),
        parameters=ndarrays_to_parameters([vector]),
        num_examples=weight,
        metrics={"receipt": int(str(metrics["receipt"]))},
    )
    return fitres_to_recorddict(result, keep_input=False)


def _check_setup(asked: ConfigRecord, clip: float) -> None:
    sites, shares = (_integer(asked, key) for key in (Key.SAMPLE_NUMBER, Key.SHARE_NUMBER))
    threshold, steps = (_integer(asked, key) for key in (Key.THRESHOLD, Key.TARGET_RANGE))
    if shares < _LEAST_SHARES or not shares // 2 < threshold <= shares <= sites:
        raise ConfigError(
            f"the server asks for {threshold} of {shares} shares among {sites} sites; expected "
            "three shares or more and a threshold of more than half of them"
        )
    found = steps, *(asked.get(k) for k in (Key.CLIPPING_RANGE, Key.MAX_WEIGHT, Key.MOD_RANGE))
    agreed = levels(sites), clip, 1, MODULUS
    if found != agreed:
        raise ConfigError(
            f"the server asks for {found} as steps, range, weight and modulus of the masked "
            f"numbers; agreed are {agreed}"
        )


def _unpack(content: RecordDict) -> PromptState:
    record = content.array_records[ARRAYS]
    shapes = {name: tuple(array.shape) for name, array in record.items()}
    return from_array_record(record, shapes, _dtype(content))


def _dtype(content: RecordDict) -> str:
    return next(iter(content.array_records[ARRAYS].values())).dtype


def _integer(asked: ConfigRecord, key: str) -> int:
    value = asked.get(key)
    if not isinstance(value, int):
        raise ConfigError(f"the server's {key} is {value!r}, expected an integer")
    return value


def _nodes(asked: ConfigRecord, key: str) -> set[object]:
    value = asked.get(key)
    return set(value) if isinstance(value, list) else set()
