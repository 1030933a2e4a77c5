"""The whole chain under a seed: what producers send, who is killed when, and what must hold of it at the end.

Every message's body is its script: `<number> <word> <times>`. Consumers write down when they begin a message and what
came of it; all consumers of a group write into one file, whole lines only, so the lines stand in the order in which
things happened.

1. What was acknowledged, or committed, is in its queue once, and each group is done with it at least once, or it lies
   in the group's dead-letter topic. Twice only where the sender could not know.
2. Nobody sees what was rolled back, or a delayed message before its time.
3. What the broker moves by itself (a delivery, a retry, a dead letter, a commit) happens once: the log shows it.
4. In order: no message of a queue is begun before the one before it is done, nor while another member works on it.
"""
import collections
import dataclasses
import json
import random

ORDERLY, CONCURRENT = "orderly", "concurrent"
QUEUES = 4
# Deliveries after the first until a message is dead; the drivers tell their clients.
ATTEMPTS_MAX = 2
DELAY_MS_OF_LEVEL = {1: 1_000, 2: 5_000}
# A sender gives up waiting after this; what it sends again then may be stored already.
TIMEOUT_MS = 3_000


@dataclasses.dataclass
class Group:
    """Consumers that share a topic."""

    client: object
    mode: str
    members: int

    def name(self, run):
        return f"GID_chain_{self.mode}_{self.client.name}_{run}".replace("-", "_")


@dataclasses.dataclass
class Event:
    """Somebody dies at a time, in seconds from the start, and comes back after a while."""

    at: float
    who: str  # broker, producer or consumer
    which: int
    away: float

    def meets(self, other):
        """Whether a consumer dies about when the broker does: its locks then last until a minute after the restart."""
        if {self.who, other.who} != {"broker", "consumer"}:
            return False
        return self.at < other.at + other.away + 2.5 and other.at < self.at + self.away + 2.5


class Plan:
    """What a seed decides. The same seed gives the same plan; when things happen is the machine's."""

    def __init__(self, seed, run, producers, count, seconds, kills, apart=False):
        draws = random.Random(seed)
        self.seed, self.run = seed, run
        self.topics = {CONCURRENT: f"T_chain_{run}", ORDERLY: f"T_chain_order_{run}"}
        self.messages = {}  # index -> item
        self.of_producer = [[] for _ in producers]
        for index in range(count):
            item = self.item(draws, index)
            self.messages[index] = item
            self.of_producer[index % len(producers)].append(item)
        self.pace_ms = round(seconds * 1000 / max(1, len(self.of_producer[0])))
        self.events = []
        for who, times, most in kills:
            for _ in range(times):
                event = Event(draws.uniform(2, seconds), who, draws.randrange(1 << 16), draws.uniform(0, most))
                while apart and any(event.meets(other) for other in self.events):
                    event.at = draws.uniform(2, seconds)
                self.events.append(event)
        self.events.sort(key=lambda event: event.at)

    def item(self, draws, index):
        kind = draws.choices(["plain", "ordered", "level", "timed", "transaction"], [30, 35, 8, 8, 19])[0]
        item = dict(index=index, kind=kind, key=f"{self.run}-{index}", level=0, delay_ms=0, queue=0,
                    topic=self.topics[ORDERLY if kind == "ordered" else CONCURRENT])
        if kind == "ordered":
            word = draws.choices(["ok", "again 1", "again 2", "slow 150"], [80, 8, 4, 8])[0]
            item["queue"] = draws.randrange(QUEUES)
        elif kind == "transaction":
            word = draws.choices(["commit", "rollback", "ask-commit 0", "ask-rollback 0", "ask-commit 1",
                                  "ask-rollback 1"], [6, 4, 4, 3, 2, 1])[0]
        else:
            word = draws.choices(["ok", "fail 1", "fail 2", "dead", "slow 200"], [70, 12, 6, 6, 6])[0]
        if kind == "level":
            item["level"] = draws.choice(sorted(DELAY_MS_OF_LEVEL))
        if kind == "timed":
            item["delay_ms"] = draws.randrange(200, 8_000)
        item["body"] = f"{index} {word}"
        return item

    def write(self, path, items):
        path.write_text(json.dumps(dict(pace_ms=self.pace_ms, retry_seconds=120, timeout_ms=TIMEOUT_MS,
                                        messages=items)))
        return path

    def word(self, index):
        return self.messages[index]["body"].split()[1]

    def is_rolled_back(self, index):
        return self.word(index) in ("rollback", "ask-rollback")

    def is_dead(self, index):
        return self.word(index) == "dead"


def done_by(plan, group, lines):
    """The messages that a group is done with."""
    return {line["index"] for line in lines if line["what"] == "done"}


def must_be_done(plan, group, acked):
    """Those that it must be done with in the end."""
    wanted = {index for index in acked if plan.messages[index]["topic"] == plan.topics[group.mode]}
    return {index for index in wanted if not plan.is_rolled_back(index) and not plan.is_dead(index)}


def must_be_dead(plan, group, acked):
    """Those that must lie in its dead-letter topic."""
    return {index for index in acked if group.mode == CONCURRENT and plan.is_dead(index)}


@dataclasses.dataclass
class Found:
    """What is wrong, by kind, with examples; and what was counted on the way."""

    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    wrong: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    notes: list = dataclasses.field(default_factory=list)

    def note(self, kind, text):
        self.wrong[kind] += 1
        if self.wrong[kind] <= 4:
            self.notes.append(f"{kind}: {text}")


def judge_stored(plan, acks, stored, away, doubtful, found, remembers=True):
    """What lies in the topics, against what was acknowledged.

    `acks`: all lines of all producers. `stored`: topic -> records, queue after queue, by offset. `away`: the times in
    ms, from and to, in which the broker was not there: a send on its way then may be stored without anybody being told,
    and twice by a producer that made another message of it; by one that sent the same again, under the same unique key,
    once, where the broker remembers. `doubtful`: what a producer that was killed may have sent, and the next one sent again.
    """
    told = collections.defaultdict(list)
    for ack in acks:
        told[ack["index"]].append(ack)
    acked = {index for index, lines in told.items() if any(line["status"] == "acked" for line in lines)}
    places = collections.defaultdict(list)
    for topic in plan.topics.values():
        for record in stored.get(topic, []):
            if record["keys"] != "first":
                places[int(record["body"].split()[0])].append({**record, "topic": topic})
    for index, item in plan.messages.items():
        records = places[index]
        lines = told[index]
        # Without an answer, or with more than one attempt, nobody can know how often it was stored.
        doubt = len(lines) != 1 or lines[0]["attempts"] > 1 or index not in acked or index in doubtful
        was_away = any(line["started"] <= to and line["ended"] >= since for line in lines for since, to in away)
        doubt = doubt or was_away
        if any(record["topic"] != item["topic"] for record in records):
            found.note("displaced", f"{item} in {[r['topic'] for r in records]}")
        if plan.is_rolled_back(index):
            if records:
                found.note("rolled back and seen", f"{item} at {places_of(records)}")
            continue
        if index in acked and not records:
            found.note("lost", f"{item}, acknowledged {lines}")
        if len(records) > 1:
            # Who is impatient with a broker that is there may have been answered; who lost it has not.
            if not doubt or remembers and was_away and is_one_twice(records):
                found.note("twice", f"{item} at {places_of(records)}, {lines}")
            else:
                found.counts["stored twice, as their senders could not know"] += 1
        found.counts["sent again to a broker that had gone, and stored once"] += was_away and len(records) == 1
        delay = DELAY_MS_OF_LEVEL.get(item["level"], item["delay_ms"])
        for record in records:
            if record["storeTimestamp"] < record["bornTimestamp"] + delay:
                found.note("early", f"{item} after {record['storeTimestamp'] - record['bornTimestamp']} ms")
        place = next((line for line in lines if line["status"] == "acked"), None)
        if place and item["kind"] in ("plain", "ordered") and "queueOffset" in place:
            if not any((r["queueId"], r["queueOffset"]) == (place["queueId"], place["queueOffset"]) for r in records):
                found.note("displaced", f"{item} told {place}, found {places_of(records)}")
    found.counts["acknowledged"] += len(acked)
    found.counts["stored"] += sum(len(records) for records in places.values())
    return acked, {index for index, records in places.items() if records}


def is_one_twice(records):
    """Whether two of them are one message that was sent again."""
    keys = [record.get("properties", {}).get("UNIQ_KEY") for record in records]
    keys = [key for key in keys if key]
    return len(set(keys)) < len(keys)


def places_of(records):
    return [(r["queueId"], r["queueOffset"]) for r in records]


def judge_group(plan, group, acked, visible, lines, retried, dead, away, found):
    """What a group did, and what lies in its retry and dead-letter topics."""
    name = f"{group.mode} {group.client.name}"
    done = done_by(plan, group, lines)
    dead_ones = collections.Counter(int(record["body"].split()[0]) for record in dead)
    for index in must_be_done(plan, group, acked | visible) - done:
        if not dead_ones[index]:
            found.note("not consumed", f"{plan.messages[index]} by {name}")
    for index in must_be_dead(plan, group, acked | visible):
        if not dead_ones[index]:
            found.note("not dead", f"{plan.messages[index]} by {name}")
    for index in dead_ones:
        if not plan.is_dead(index) and index not in done:
            found.counts["dead although it could have been done"] += 1
    for line in lines:
        if line["what"] != "killed" and plan.is_rolled_back(line["index"]):
            found.note("rolled back and seen", f"{line} by {name}")
    # A retry or a dead letter comes of an attempt that failed, and each such attempt brings one: two where the
    # consumer could not know whether its send-back had arrived, and sent a copy itself.
    fails = collections.Counter()
    for line in lines:
        if line["what"] == "fail":
            fails[line["index"], line["attempts"] + 1] += 1
            fails[line["index"], line["attempts"] + 1] += any(
                since - TIMEOUT_MS <= line["at"] <= to + TIMEOUT_MS for since, to in away)
    again = collections.Counter(
        (int(record["body"].split()[0]), record["reconsumeTimes"]) for record in [*retried, *dead])
    for (index, attempts), times in again.items():
        # Who was killed had perhaps sent it back and not written that down.
        begun = sum(line["index"] == index for line in lines if line["what"] == "begin")
        if times > fails[index, attempts] and times > begun:
            found.note("moved twice", f"{plan.messages[index]} by {name}: attempt {attempts} is there {times} times, "
                                      f"and {begun} were begun")
    found.counts["deliveries"] += sum(line["what"] == "begin" for line in lines)
    found.counts["retries"] += len(retried)
    found.counts["dead letters"] += len(dead)
    if group.mode == ORDERLY:
        judge_order(plan, name, lines, found)


def judge_order(plan, name, lines, found):
    """No message is begun before all before it are done; and one at a time.

    A member that was killed in the middle of a message neither finishes it nor stands in anybody's way. Who comes
    after it may begin with messages that were done before: those come again in their order.
    """
    done_to = collections.defaultdict(lambda: -1)  # queue -> the highest offset up to which all are done
    done = collections.defaultdict(set)
    working = {}  # queue -> (member, offset, thing) that was begun and not ended
    killed = set()
    for line in lines:
        if line["what"] == "killed":
            killed.add(line["by"])
            continue
        queue, offset, who = line["queueId"], line["queueOffset"], line["by"]
        if line["what"] == "begin":
            if offset > done_to[queue] + 1:
                found.note("out of order", f"{name}: {offset} of queue {queue} begun by {who}, done to {done_to[queue]}")
            other = working.get(queue)
            if other and other[0] != who and other[0] not in killed:
                found.note("two at once", f"{name}: queue {queue}: {offset} begun by {who} while {other[0]} has {other[1]}")
            working[queue] = (who, offset)
            continue
        if working.get(queue, (None,))[0] == who:
            del working[queue]
        if line["what"] == "done":
            done[queue].add(offset)
            while done_to[queue] + 1 in done[queue]:
                done_to[queue] += 1


def judge_log(items, found):
    """What the log itself says of the broker's moves: each in one frame, and none of them twice."""
    frames = []
    for item in items:
        if "frame" in item:
            frames.append([])
        elif "record" in item:
            frames[-1].append(item)
    put, ended = {}, collections.Counter()
    decided, committed = collections.Counter(), collections.Counter()
    for records in frames:
        links = [r for r in records if r["record"] == "link"]
        over = [r["name"] for r in records if r["record"] == "delete" and put.get(r["name"])]
        # Several moves may share a frame, and verdicts and dead letters bring links of their own; each delivery has one there.
        if len(links) < len(over):
            found.note("not in one step", f"{over} end in a frame with {len(links)} links")
        # Only where all links are verdicts' it is plain which are.
        verdicts = [r for r in records if r["record"] == "put" and r["name"].startswith("txn/") and is_decided(r)]
        if verdicts and not over and len(links) <= len(verdicts):
            committed.update(link["target"] for link in links)
        for r in records:
            if r["record"] == "put" and r["name"].startswith("due/"):
                if r["name"] in put:
                    found.note("moved twice", f"the entry {r['name']} is put twice")
                put[r["name"]] = is_delivery(r)
            if r["record"] == "delete" and r["name"].startswith("due/"):
                ended[r["name"]] += 1
                found.counts["delivered in the log"] += bool(put.get(r["name"]))
            if r["record"] == "put" and r["name"].startswith("txn/") and is_decided(r):
                decided[r["name"]] += 1
    for name, times in ended.items():
        if times > 1 or name not in put:
            found.note("moved twice", f"the entry {name} ends {times} times")
    for name, times in decided.items():
        if times > 1:
            found.note("moved twice", f"the transaction {name} is decided {times} times")
    for target, times in committed.items():
        if times > 1:
            found.note("moved twice", f"the half message at {target} is committed {times} times")
    found.counts["decided in the log"] += len(decided)


def value_of(record):
    """The first bytes of a table entry's value."""
    return record["payload"].encode("latin-1").decode("unicode_escape").encode("latin-1")


def is_delivery(record):
    """Whether an entry for a time is a message that is delivered then; others ask, or forget."""
    return value_of(record)[1] in (1, 2)


def is_decided(record):
    return value_of(record)[1] not in (1, 2)
