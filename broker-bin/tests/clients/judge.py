"""Compares what was acknowledged with what was read: lost, twice, out of order, changed."""
import collections
import dataclasses
import json
from pathlib import Path


def read_lines(path):
    """The complete lines of a driver's output; a killed driver may leave half a line at the end."""
    path = Path(path)
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        found.append(json.loads(line))
    return found


@dataclasses.dataclass
class Cell:
    """One sender read by one consumer."""

    acked: int = 0
    lost: int = 0
    twice: int = 0  # deliveries beyond the first, where no retry of the sender explains them
    again: int = 0  # the same, explained by a retry while the broker was away
    disorder: int = 0  # steps back within a queue
    changed: int = 0  # body, tag, keys, properties or position differ
    uninvited: int = 0  # read, but never acknowledged and not in doubt
    notes: list = dataclasses.field(default_factory=list)

    @property
    def ok(self):
        return self.acked > 0 and not (self.lost or self.twice or self.disorder or self.changed or self.uninvited)

    def __str__(self):
        if self.acked == 0:
            return "none acked"
        counts = [f"{name} {getattr(self, name)}" for name in ("lost", "twice", "disorder", "changed", "uninvited")
                  if getattr(self, name)]
        return ", ".join(counts) or ("ok" if not self.again else f"ok ({self.again} again)")

    def note(self, text):
        if len(self.notes) < 8:
            self.notes.append(text)


def positions(records):
    """(topic, keys) -> (queue id, queue offset) as told by the consumers that show it.

    A message that was stored twice (sent again across a kill) has no one place: which of the two a reader without
    positions met, nobody can tell.
    """
    found = collections.defaultdict(set)
    for record in records:
        if record.get("queueId") is not None and not record.get("reconsumeTimes"):
            found[record["topic"], record["keys"]].add((record["queueId"], record["queueOffset"]))
    return {message: places.pop() for message, places in found.items() if len(places) == 1}


def judge(plan, acks, records, topic, consumer, told, away=(), repeats=False):
    """The cell of one sender and one consumer.

    `told` gives positions for consumers that do not show them. `away` holds the times (from, to) in ms in which the
    broker was not there: a message in flight then may have been stored without an acknowledgement, or twice. With
    `repeats` any message may be read again: the reader lived through a restart, and reading is at least once.
    """
    cell = Cell()
    sender = plan.client
    acked = {a["index"]: a for a in acks if a["status"] == "acked"}
    cell.acked = len(acked)
    index_of = {plan.keys(i): i for i in plan.items}
    in_doubt = {a["index"] for a in acks if any(a["started"] <= to and a["ended"] >= since for since, to in away)}
    by_index = collections.defaultdict(list)
    newest = {}  # queue id -> (queue offset, index) of the newest message seen
    for record in records:
        if record["topic"] != topic or record["keys"] == "first":
            continue
        index = index_of.get(record["keys"])
        if index is None or (index not in acked and index not in in_doubt):
            cell.uninvited += 1
            cell.note(f"uninvited: {record['keys']}")
            continue
        by_index[index].append(record)
        queue, offset = record.get("queueId"), record.get("queueOffset")
        if not consumer.reads_position:
            queue, offset = told.get((topic, record["keys"]), (None, None))
        if queue is None:
            continue
        before = newest.get(queue)
        if len(by_index[index]) == 1:
            # Both must rise: the place in the queue, and the order in which the one sender sent.
            if before and (offset <= before[0] or (index < before[1] and index not in in_doubt)):
                cell.disorder += 1
                cell.note(f"queue {queue}: {index} at {offset} after {before[1]} at {before[0]}")
            newest[queue] = (offset, index)
    for index, ack in acked.items():
        found = by_index[index]
        if not found:
            cell.lost += 1
            cell.note(f"lost: {index} ({plan.keys(index)})")
            continue
        if len(found) > 1:
            name = "again" if repeats or index in in_doubt else "twice"
            setattr(cell, name, getattr(cell, name) + len(found) - 1)
            if name == "twice":
                cell.note(f"twice: {index} at {[(r.get('queueId'), r.get('queueOffset')) for r in found]}")
        why = difference(plan, index, ack, found, sender, consumer)
        if why:
            cell.changed += 1
            cell.note(f"changed: {index}: {why}")
    return cell


def difference(plan, index, ack, found, sender, consumer):
    """What of a message did not arrive as it was sent, or None."""
    item, (sha256, length) = plan.items[index], plan.expected[index]
    got = found[0]
    if got["tag"] != item["tag"]:
        return f"tag {got['tag']!r}"
    text = not item.get("file", "").startswith("binary")
    if (text or consumer.reads_bytes) and (got["sha256"] != sha256 or got["length"] != length):
        return f"{got['length']} bytes for {length}"
    if sender.sends_properties and consumer.reads_properties:
        for name, value in item["properties"].items():
            if got["properties"].get(name) != value:
                return f"property {name}: {got['properties'].get(name)!r}"
    if got.get("reconsumeTimes"):
        return f"reconsumeTimes {got['reconsumeTimes']}"
    if ack.get("queueOffset") is not None and consumer.reads_position:
        places = [(r["queueId"], r["queueOffset"]) for r in found]
        if not any(ack["queueOffset"] == o and ack.get("queueId", q) == q for q, o in places):
            return f"acknowledged at {ack.get('queueId')}:{ack['queueOffset']}, read at {places}"
    return None
