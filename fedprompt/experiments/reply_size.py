"""Measure what a site's reply to one round takes on the wire: the product's own message, packed.

Ids are as long as a deployment's: 64-bit nodes and run, SHA-256 message ids. The size is that of
the serialised Flower ``Message`` with all its framing; TLS and HTTP are not counted.
"""

from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.task_identity import TaskIdentity

from client.app import trained
from fedprompt.prompt_state import PromptState
from fedprompt.wire import receipt

RUN = NODE = TASK = 2**64 - 59  # Flower draws its ids from 8 bytes
RUN_DIGEST, IDENTITY_DIGEST = "5" * 64, "7" * 64  # a run and an identity are known by SHA-256
_EXAMPLES, _LOSS = 3_840, 1.234567
_ROUND, _SITE = 10, 7


def reply_bytes(arrays: PromptState, dtype: str) -> int:
    """Return the bytes of a site's reply that carries some arrays; their values do not matter.

    Parameters
    ----------
    arrays
        What travels of a method.
    dtype
        Of the wire, ``float32`` or ``float16``.
    """
    identify(server=True)
    question = addressed(Message(RecordDict(), NODE, "train"))
    return serialised(answered(question, arrays, dtype))


def answered(question: Message, arrays: PromptState, dtype: str) -> Message:
    """Return a site's reply to a train message."""
    stamp = receipt(RUN_DIGEST, _ROUND, _SITE, IDENTITY_DIGEST)
    identify(server=False)
    content = trained(arrays, dtype, _EXAMPLES, _LOSS, stamp)
    return addressed(Message(content, reply_to=question))


def identify(*, server: bool) -> None:
    """Let the messages made from now on be those of a deployment's server, or of a site."""
    TaskIdentity.run_id, TaskIdentity.task_id = RUN, TASK
    TaskIdentity.node_id = 1 if server else NODE


def addressed(message: Message) -> Message:
    """Give a message the id it has in a deployment: its SHA-256."""
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def serialised(message: Message) -> int:
    """Return the bytes of one protobuf message."""
    return len(message_to_proto(message).SerializeToString())
