"""Hostile nodes before Flower's real state and object store: what one sends costs nobody else.

Nothing here waits for another process: nodes act before each look of the server.
"""

import json
import logging
import math
from contextlib import suppress
from datetime import timedelta

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import sql_linkstate
from flwr.supercore.date import now
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
)
from flwr.superlink.servicer.fleet import fleet_handlers

from server.deployment import sender_check
from server.rounds import exchange as exchange_module
from server.rounds import inbox
from server.rounds.exchange import LINGER, Fault, exchange
from server.rounds.inbox import MOST_OBJECTS
from server.rounds.loop import Rounds
from tests import sites
from tests.superlink import MOST, superlink

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found")  # Flower's migrations

KINDS = ("query", "train", "evaluate", "query.centres", "train.secure")
BRIEF = 0.1  # seconds of an exchange that somebody lets run out; all act in its first look
LONG = 120.0  # seconds of one that nobody does


@pytest.fixture
def link(tmp_path, monkeypatch):
    with superlink(tmp_path, monkeypatch) as link:
        yield link


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A SuperLink as Flower makes it."""
    with superlink(tmp_path, monkeypatch, guarded=False) as link:
        yield link


def config(**values):
    return ConfigRecord({"run": "r", "round": 1, **values})


def content(number=1):
    arrays = sites.to_array_record({n: a + number for n, a in sites.start().items()}, "float32")
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": number})})


def answer(message, number=1):
    return Message(content(number), reply_to=message)


def honest(node):
    if message := node.pull():
        node.reply(answer(message, node.id % 1000))


def announcing(node):
    if message := node.pull():
        node.announce(answer(message))


def ask(link, conduct, kind="train", seconds=LONG):
    """Ask nodes and let each act before every look; return the answers by node."""

    def act():
        for node, does in conduct.items():
            does(node)

    link.grid.before_look = act
    nodes = {node.id: RecordDict({"config": config()}) for node in conduct}
    answers, _ = exchange(link.grid, nodes, kind, seconds)
    assert len({found.node for found in answers}) == len(answers)
    return {found.node: found.message for found in answers}


def fault(message):
    return message.error.code if message.has_error() else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["link", "plain"])
def test_F18_a_reply_that_is_never_uploaded_costs_its_own_site_only(kind, state, request):
    """Flower's grid waits for the objects of the first reply until all messages have expired."""
    link = request.getfixturevalue(state)
    nodes = [link.node(name) for name in "abcd"]
    conduct = dict(zip(nodes, (announcing, honest, announcing, honest), strict=True))
    found = ask(link, conduct, kind, BRIEF)
    assert [fault(found[node.id]) for node in nodes] == [Fault.WITHHELD, None, Fault.WITHHELD, None]
    assert "in 8 parts, and not whole" in found[nodes[0].id].error.reason


@pytest.mark.parametrize("lacking", range(8))
@pytest.mark.parametrize("state", ["link", "plain"])
def test_F18_nor_does_one_of_which_a_part_is_missing(lacking, state, request):
    link = request.getfixturevalue(state)
    hostile, other = link.node("hostile"), link.node("other")

    def partly(node):
        if message := node.pull():
            reply = answer(message)
            session = node.announce(reply).session_id
            objects = get_all_nested_objects(reply)
            for place, (name, part) in enumerate(objects.items()):
                assert place == lacking or node.upload(session, name, part.deflate())

    found = ask(link, {hostile: partly, other: honest}, "train", BRIEF)
    assert fault(found[hostile.id]) == Fault.WITHHELD
    assert fault(found[other.id]) is None


@pytest.mark.parametrize("state", ["link", "plain"])
def test_a_reply_may_come_part_by_part(state, request):
    link = request.getfixturevalue(state)
    slow, other = link.node("slow"), link.node("other")
    parts = []

    def slowly(node):
        if message := node.pull():
            reply = answer(message)
            session = node.announce(reply).session_id
            found = get_all_nested_objects(reply).items()
            parts.extend((session, name, part.deflate()) for name, part in found)
        elif parts:
            assert node.upload(*parts.pop())

    found = ask(link, {slow: slowly, other: honest})
    assert [fault(message) for message in found.values()] == [None, None]
    assert found[slow.id].content["metrics"]["num-examples"] == 1


@pytest.mark.parametrize(
    ("passed", "found"),
    [(0.0, None), (BRIEF, None), (BRIEF + LINGER, ErrorCode.MESSAGE_UNAVAILABLE)],
)
def test_messages_outlive_the_deadline_and_then_expire(link, monkeypatch, passed, found):
    """What came by the deadline is read, though the reading of others took its time."""
    node = link.node("north")

    def late(node):
        honest(node)
        clock = timedelta(seconds=passed)
        monkeypatch.setattr(sql_linkstate, "now", lambda: now() + clock)

    assert fault(ask(link, {node: late}, seconds=BRIEF)[node.id]) == found


class Clock:
    """Stand for the clocks of server and SuperLink: they go on when somebody waits or fetches."""

    def __init__(self, link, monkeypatch):
        self.passed, begun = 0.0, now()
        monkeypatch.setattr(exchange_module, "time", self)
        monkeypatch.setattr(inbox, "time", self)
        monkeypatch.setattr(sql_linkstate, "now", lambda: begun + timedelta(seconds=self.passed))
        self.fetch, self.after_fetch = link.grid.PullObject, lambda: None
        monkeypatch.setattr(link.grid, "PullObject", self._fetch)

    def monotonic(self):
        return self.passed

    def sleep(self, seconds):
        self.passed += seconds

    def _fetch(self, request):
        self.passed += SLOW
        self.after_fetch()
        return self.fetch(request)


MANY, SLOW = 64, 1.0  # objects, and seconds of a request to a busy SuperLink


@pytest.mark.parametrize("state", ["link", "plain"])
def test_F18_a_reply_of_many_objects_costs_nobody_else_theirs(state, request, monkeypatch):
    """It takes longer to fetch than messages outlive their deadline; another arrives meanwhile."""
    link = request.getfixturevalue(state)
    hostile, other = link.node("hostile"), link.node("other")
    clock, deadline = Clock(link, monkeypatch), 10.0
    assert deadline + LINGER < MANY * SLOW

    def many(node):
        if message := node.pull():
            records = {f"{n}": MetricRecord({"x": n}) for n in range(MANY)}
            node.reply(Message(RecordDict(records), reply_to=message))

    def in_time():
        if deadline / 2 < clock.passed < deadline:
            honest(other)

    clock.after_fetch = in_time
    found = ask(link, {hostile: many, other: lambda _: None}, seconds=deadline)
    assert [fault(found[node.id]) for node in (hostile, other)] == [None, None]
    assert len(found[hostile.id].content) == MANY
    assert clock.passed > deadline + LINGER


def test_F15_flower_itself_lets_a_node_claim_what_the_server_sends_next(plain):
    """Documents the library: why a tree is believed only when all of it is here."""
    node = plain.node("hostile")
    ahead = config(nonce=1)

    def claim(node):
        if message := node.pull():
            reply = answer(message)
            tree = get_object_tree(reply)
            false = ObjectTree(object_id=ahead.object_id)
            false.children.append(ObjectTree(object_id="0" * 64))
            tree.children.append(false)
            node.announce(reply, tree)

    plain.grid.push_messages([Message(content(), node.id, "evaluate")])
    claim(node)
    with pytest.raises(ValueError, match="preregistered with different children"):
        exchange(plain.grid, {node.id: RecordDict({"config": ahead})}, "train", BRIEF)


def claiming(object_id):
    """Return a node that names an object of somebody else's with false objects below it."""

    def claim(node):
        if message := node.pull():
            reply = answer(message)
            tree = get_object_tree(reply)
            false = ObjectTree(object_id=object_id)
            false.children.append(ObjectTree(object_id="0" * 64))
            tree.children.append(false)
            with suppress(FlowerError):
                session = node.announce(reply, tree).session_id
                for name, part in get_all_nested_objects(reply).items():
                    node.upload(session, name, part.deflate())

    return claim


def test_F15_a_claim_binds_nobody_and_names_its_node(link, caplog):
    hostile, victim = link.node("east"), link.node("west")
    ahead = RecordDict({"config": config(nonce=1)})
    with caplog.at_level(logging.WARNING, "fedprompt.audit"):
        found = ask(link, {hostile: claiming(ahead["config"].object_id), victim: honest})
    assert fault(found[hostile.id]) == Fault.TRESPASS
    assert fault(found[victim.id]) is None
    [line] = [line for line in caplog.records if line.name == "fedprompt.audit"]
    assert (line.event, line.site, line.node) == ("trespass", "east", hostile.id)
    link.grid.before_look = lambda: [honest(hostile), honest(victim)]
    answers, _ = exchange(link.grid, {hostile.id: ahead, victim.id: ahead}, "train", LONG)
    assert [fault(found.message) for found in answers] == [None, None]


def test_F15_another_site_s_answer_cannot_be_claimed(link):
    """Its card but for one number is known to all; Flower would refuse it with an error 500."""
    hostile, victim = link.node("east"), link.node("west")
    expected = answer(Message(RecordDict(), 1, "query"), victim.id % 1000).content
    for part in get_all_nested_objects(expected):
        found = ask(link, {hostile: claiming(part), victim: honest}, "query")
        assert fault(found[victim.id]) is None
        assert fault(found[hostile.id]) == Fault.TRESPASS


def spoilt(change):
    """Return a node whose reply is changed: ``change`` gets tree, objects and head."""

    def act(node):
        if message := node.pull():
            reply = answer(message)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = {n: o.deflate() for n, o in get_all_nested_objects(reply).items()}
            tree = get_object_tree(reply)
            change(tree, objects, reply)
            try:
                session = node.announce(reply, tree).session_id
            except FlowerError:
                return
            for name, part in objects.items():
                node.upload(session, name, part)

    return act


def other_bytes(tree, objects, reply):
    name = next(iter(objects))
    objects[name] += b"x"


def not_announced(tree, objects, reply):
    extra, own = MetricRecord({"x": 1}).deflate(), dict(objects)
    objects.clear()
    objects.update({get_object_id(extra): extra, **own})


def childless(tree, objects, reply):
    del tree.children[0].children[:]


def no_hash(tree, objects, reply):
    tree.children.append(ObjectTree(object_id="0x" + "0" * 62))


def upper_case(tree, objects, reply):
    tree.children.append(ObjectTree(object_id="A" * 64))


def two_ways(tree, objects, reply):
    tree.children.append(ObjectTree(object_id=tree.children[0].object_id))


def crowd(tree, objects, reply):
    tree.children.extend(ObjectTree(object_id=f"{n:064x}") for n in range(MOST_OBJECTS))


def other_root(tree, objects, reply):
    tree.CopyFrom(get_object_tree(MetricRecord({"x": 1})))


def nested(tree, objects, reply):
    inner = answer(reply)
    parts = {n: o.deflate() for n, o in get_all_nested_objects(inner).items()}
    record = f"RecordDict {inner.object_id} 2".encode() + b"\0{}"
    name, old = get_object_id(record), tree.children[0].object_id
    root = objects.pop(tree.object_id).replace(old.encode(), name.encode())
    below = ObjectTree(object_id=name, children=[get_object_tree(inner)])
    tree.CopyFrom(ObjectTree(object_id=get_object_id(root), children=[below]))
    objects.clear()
    objects.update({**parts, name: record, tree.object_id: root})
    reply.metadata.__dict__["_message_id"] = tree.object_id


def large(tree, objects, reply):
    rows = [bytes([n]) * (MOST // 4) for n in range(5)]
    reply.content = RecordDict({str(n): ConfigRecord({"x": row}) for n, row in enumerate(rows)})
    objects.clear()
    objects.update({n: o.deflate() for n, o in get_all_nested_objects(reply).items()})
    tree.CopyFrom(get_object_tree(reply))


CHANGES = [
    *(other_bytes, not_announced, childless, no_hash, upper_case, two_ways, crowd, other_root),
    *(nested, large),
]


@pytest.mark.parametrize("change", CHANGES)
def test_F15_a_reply_is_what_was_announced(link, change):
    hostile, other = link.node("hostile"), link.node("other")
    found = ask(link, {hostile: spoilt(change), other: honest})
    assert fault(found[hostile.id]) == Fault.TRESPASS
    assert fault(found[other.id]) is None


def reaching(act):
    """Return a node that reaches for what is another's, then answers as an honest one."""

    def does(node):
        if message := node.pull():
            act(node)
            try:
                node.reply(answer(message))
            except FlowerError:
                return

    return does


@pytest.mark.parametrize("named", range(8))
def test_F15_another_site_s_update_cannot_be_fetched_by_its_hash(link, named):
    hostile, victim = link.node("east"), link.node("west")
    objects = list(get_all_nested_objects(content(victim.id % 1000)))
    wanted = objects[named % len(objects)]

    def steal(node):
        honest(victim)  # it is there now
        assert link.state.object_store.get(wanted)
        response = node.fetch(wanted)
        assert (response.object_found, response.object_content) == (False, b"")

    found = ask(link, {hostile: reaching(steal), victim: honest})
    assert fault(found[hostile.id]) == Fault.TRESPASS
    assert fault(found[victim.id]) is None


def test_F15_another_site_s_message_cannot_be_confirmed_away(link):
    """A message that is confirmed is deleted; before it was fetched it would never arrive."""
    hostile, victim = link.node("east"), link.node("west")
    asked = []
    original = link.grid.PushMessages

    def note(request):
        asked.extend(request.messages_list)
        return original(request)

    link.grid.PushMessages = note

    def wipe(node):
        for message in asked:
            if message.metadata.dst_node_id == victim.id:
                node.confirm(message.metadata.message_id)

    found = ask(link, {hostile: reaching(wipe), victim: honest})
    assert fault(found[hostile.id]) == Fault.TRESPASS
    assert fault(found[victim.id]) is None


def test_F11_a_reply_may_be_sent_again_after_a_lost_connection(link):
    node = link.node("north")

    def twice(node):
        if message := node.pull():
            reply = answer(message)
            objects = get_all_nested_objects(reply)
            first, second = node.announce(reply), node.announce(reply)
            assert first.session_id == second.session_id
            assert sorted(second.objects_to_push) == sorted(objects)
            for name, part in objects.items():
                assert node.upload(first.session_id, name, part.deflate())
                assert node.upload(first.session_id, name, part.deflate())
            assert node.announce(reply).objects_to_push == []

    found = ask(link, {node: twice})
    assert fault(found[node.id]) is None


def test_F21_a_node_that_goes_on_after_the_superlink_was_started_again_did_no_wrong(link, caplog):
    """Its requests are repeated until somebody answers, and the earlier run may not be over yet."""
    node = link.node("north")
    link.grid.push_messages([Message(content(), node.id, "train")])
    message = node.pull()
    reply = answer(message)
    session = node.announce(reply).session_id
    sender_check.install(MOST)  # what the SuperLink knew of the run is gone
    assert not node.fetch(message.metadata.message_id).object_found
    node.confirm(message.metadata.message_id)
    assert not node.upload(session, reply.object_id, reply.deflate())
    assert list(node.announce(reply).objects_to_push) == []
    assert not [line for line in caplog.records if line.name == "fedprompt.audit"]
    assert fault(ask(link, {node: honest})[node.id]) is None


def test_equal_content_of_two_sites_is_no_trespass_and_tells_nothing(link):
    """Neither site can learn from what it must upload that another has sent the same."""
    first, second = link.node("first"), link.node("second")
    wanted = []

    def same(node):
        if message := node.pull():
            reply = answer(message, 5)
            response = node.announce(reply)
            wanted.append(len(response.objects_to_push))
            for name, part in get_all_nested_objects(reply).items():
                node.upload(response.session_id, name, part.deflate())

    found = ask(link, {first: same, second: same})
    assert [fault(message) for message in found.values()] == [None, None]
    assert wanted == [8, 8]


def test_F11_one_reply_counts(link):
    node = link.node("north")

    def two(node):
        if message := node.pull():
            node.reply(answer(message, 1))
            node.reply(answer(message, 2))

    assert ask(link, {node: two})[node.id].content["metrics"]["num-examples"] == 1


def test_an_error_of_a_site_passes(link):
    node = link.node("north")

    def fails(node):
        if message := node.pull():
            node.reply(Message(Error(2, "why"), reply_to=message))

    assert ask(link, {node: fails})[node.id].error.reason == "why"


def enrol(folder, nodes):
    """Write the list of enrolled sites as the SuperLink does."""
    listed = [
        {"node": n.id, "number": i, "name": f"s{i}", "images": 0} for i, n in enumerate(nodes)
    ]
    (folder / "nodes.json").write_text(json.dumps({"sites": listed}))
    return str(folder / "nodes.json")


def site(number):
    """Return a node's conduct: the toy site's."""
    app = sites.client()

    def does(node):
        if message := node.pull():
            context = Context(1, node.id, {"partition-id": number}, RecordDict(), {})
            node.reply(app(message, context))

    return does


@pytest.mark.parametrize("stage", ["query", "train", "evaluate"])
def test_F18_who_withholds_again_is_in_quarantine_and_the_run_goes_on(link, tmp_path, stage):
    nodes = [link.node(f"s{number}") for number in range(4)]
    conduct = [site(number) for number in range(4)]

    def act():
        for number, node in enumerate(nodes):
            if number == 3 and (message := node.pull()):
                context = Context(1, node.id, {"partition-id": 3}, RecordDict(), {})
                reply = sites.client()(message, context)
                withhold = message.metadata.message_type.split(".")[0] == stage
                (node.announce if withhold else node.reply)(reply)
            elif number < 3:
                conduct[number](node)

    link.grid.before_look = act
    settings = sites.config(
        tmp_path / "run",
        rounds=5,
        deadline=BRIEF,
        join_deadline=BRIEF,
        sites=enrol(tmp_path, nodes),
    )
    rounds = Rounds(link.grid, sites.task(), settings, 3)
    rounds.run()
    lines = [json.loads(text) for text in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(6))
    assert all({0, 1, 2} <= set(line["accepted"]) for line in lines[1:])
    assert not any(line.get("attempt") for line in lines)
    assert lines[-1]["quarantined"] == [3]
    assert lines[0]["strikes"] == {}  # a link may die once


def with_metadata(**values):
    """Return a node whose reply says something else of itself."""

    def act(node):
        if message := node.pull():
            reply = answer(message)
            reply.metadata.__dict__.update({f"_{name}": value for name, value in values.items()})
            with suppress(FlowerError):
                node.reply(reply)

    return act


@pytest.mark.parametrize("name", ["created_at", "ttl"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -1e308, 0.0, 1e-9])
def test_F18_no_date_that_a_reply_gives_itself_counts(link, name, value):
    """Flower keeps NaN as NULL, and fails at it in every later look for anybody's reply."""
    hostile, other = link.node("hostile"), link.node("other")
    for _ in range(2):
        found = ask(link, {hostile: with_metadata(**{name: value}), other: honest})
        assert [fault(message) for message in found.values()] == [None, None]


@pytest.mark.parametrize("seconds", [[math.nan], [math.inf], [-1e308], [1e308] * 3, []])
def test_F18_no_working_time_that_a_node_gives_counts(link, seconds, monkeypatch):
    hostile, other = link.node("hostile"), link.node("other")
    handler = fleet_handlers.push_messages

    def push(request, state):
        if request.node.node_id == hostile.id:
            request.clientapp_runtime_list[:] = seconds
        return handler(request, state)

    monkeypatch.setattr(fleet_handlers, "push_messages", push)
    for _ in range(2):
        found = ask(link, {hostile: honest, other: honest})
        assert [fault(message) for message in found.values()] == [None, None]
    assert link.state.get_run_info(run_ids=[link.run])[0].clientapp_runtime == 0.0


@pytest.mark.parametrize(
    "said", [{"dst_node_id": 77}, {"group_id": "x"}, {"message_type": "evaluate"}]
)
def test_F15_a_reply_is_one_to_what_was_asked(link, said):
    """Flower would drop some of these without a word, and the node would pass for a lost one."""
    hostile, other = link.node("hostile"), link.node("other")
    found = ask(link, {hostile: with_metadata(**said), other: honest})
    assert fault(found[hostile.id]) == Fault.TRESPASS
    assert fault(found[other.id]) is None
