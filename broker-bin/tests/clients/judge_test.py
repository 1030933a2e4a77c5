#!/usr/bin/env python3
"""The judge must see each kind of mistake: `python3 judge_test.py`."""
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import chain  # noqa: E402
import mixed  # noqa: E402
import scenarios  # noqa: E402
from drivers import CLIENTS  # noqa: E402
from judge import judge, positions  # noqa: E402
from plans import Plan  # noqa: E402

JAVA = next(c for c in CLIENTS if c.name == "java5")
NODEJS = next(c for c in CLIENTS if c.name == "nodejs")


class Judge(unittest.TestCase):
    """Eight messages over two queues, read back as they were sent; then one thing goes wrong."""

    def setUp(self):
        self.plan = Plan("/nowhere", "run", JAVA)
        self.plan.add_small(8)
        self.acks = [dict(index=i, status="acked", started=100 * i, ended=100 * i + 50, queueId=i % 2,
                          queueOffset=i // 2) for i in range(8)]
        self.read = [dict(topic="T", keys=self.plan.keys(i), tag=item["tag"], sha256=self.plan.expected[i][0],
                          length=self.plan.expected[i][1], properties=dict(item["properties"]), queueId=i % 2,
                          queueOffset=i // 2, reconsumeTimes=0) for i, item in self.plan.items.items()]

    def cell(self, reader=JAVA, **why_again):
        return judge(self.plan, self.acks, self.read, "T", reader, positions(self.read), **why_again)

    def test_all_right_is_ok(self):
        self.assertTrue(self.cell().ok)

    def test_nothing_acknowledged_is_not_ok(self):
        self.acks = []
        self.read = []
        self.assertFalse(self.cell().ok)

    def test_a_missing_message_is_lost(self):
        del self.read[3]
        self.assertEqual(self.cell().lost, 1)

    def test_a_second_delivery_is_twice(self):
        self.read.append(dict(self.read[3], queueOffset=9))
        self.assertEqual(self.cell().twice, 1)

    def test_a_second_delivery_is_excused_when_the_sender_retried_while_the_broker_was_away(self):
        self.read.append(dict(self.read[3], queueOffset=9))
        cell = self.cell(away=[(340, 360)])
        self.assertEqual((cell.twice, cell.again, cell.ok), (0, 1, True))

    def test_a_stored_message_without_acknowledgement_is_uninvited(self):
        del self.acks[3]
        self.assertEqual(self.cell().uninvited, 1)

    def test_a_stored_message_in_doubt_is_welcome(self):
        self.acks[3]["status"] = "refused"
        self.assertTrue(self.cell(away=[(340, 360)]).ok)

    def test_arrival_against_the_queue_order_is_disorder(self):
        self.read[2], self.read[4] = self.read[4], self.read[2]
        self.assertEqual(self.cell().disorder, 1)

    def test_storing_against_the_sending_order_is_disorder(self):
        for a in (self.acks, self.read):
            a[2]["queueOffset"], a[4]["queueOffset"] = 2, 1
        self.read[2], self.read[4] = self.read[4], self.read[2]
        self.assertEqual(self.cell().disorder, 1)

    def test_disorder_shows_at_a_reader_without_positions(self):
        told = positions(self.read)
        self.read[2], self.read[4] = self.read[4], self.read[2]
        bare = [{k: v for k, v in r.items() if k not in ("queueId", "queueOffset")} for r in self.read]
        self.assertEqual(judge(self.plan, self.acks, bare, "T", NODEJS, told).disorder, 1)

    def test_a_message_stored_twice_has_no_place_for_a_reader_without_positions(self):
        self.read.insert(2, {**self.read[4], "queueId": 1, "queueOffset": 9})
        told = positions(self.read)
        bare = [{k: v for k, v in r.items() if k not in ("queueId", "queueOffset")} for r in self.read]
        cell = judge(self.plan, self.acks, bare, "T", NODEJS, told, away=[(0, 900)])
        self.assertEqual((cell.disorder, cell.again), (0, 1))

    def test_another_body_tag_property_or_place_is_changed(self):
        for change in (dict(sha256="0"), dict(tag="TagC"), dict(properties={"lot": "3"}), dict(queueOffset=77),
                       dict(reconsumeTimes=1)):
            self.setUp()
            self.read[7].update(change)
            self.assertEqual(self.cell().changed, 1, change)


class Chain(unittest.TestCase):
    """A plan whose messages were stored and consumed as they should be; then one thing goes wrong."""

    def setUp(self):
        self.plan = chain.Plan(7, "run", [JAVA], 200, 10, [("broker", 1, 1)])
        self.found = chain.Found()
        self.acks, self.stored, self.offsets = [], {topic: [] for topic in self.plan.topics.values()}, {}
        for index, item in self.plan.messages.items():
            offset = self.offsets.setdefault((item["topic"], 0), 0)
            self.acks.append(dict(index=index, status="acked", attempts=1, started=index, ended=index, queueId=0,
                                  queueOffset=offset))
            if not self.plan.is_rolled_back(index):
                self.stored[item["topic"]].append(self.record(index, offset))
                self.offsets[item["topic"], 0] += 1
        self.groups = [chain.Group(JAVA, mode, 1) for mode in (chain.CONCURRENT, chain.ORDERLY)]

    def record(self, index, offset, times=0):
        item = self.plan.messages[index]
        delay = chain.DELAY_MS_OF_LEVEL.get(item["level"], item["delay_ms"])
        return dict(body=item["body"], keys=item["key"], queueId=0, queueOffset=offset, bornTimestamp=1_000,
                    storeTimestamp=1_000 + delay, reconsumeTimes=times)

    def first(self, wanted):
        return next(index for index in self.plan.messages if wanted(index))

    def stored_wrong(self, away=()):
        chain.judge_stored(self.plan, self.acks, self.stored, away, set(), self.found)
        return dict(self.found.wrong)

    def consumed_wrong(self, group, lines, retried=(), dead=()):
        acked = {ack["index"] for ack in self.acks}
        chain.judge_group(self.plan, group, acked, acked, lines, retried, dead, [], self.found)
        return dict(self.found.wrong)

    def lines(self, group):
        lines = []
        for record in self.stored[self.plan.topics[group.mode]]:
            index = int(record["body"].split()[0])
            end, attempts = ("fail", chain.ATTEMPTS_MAX) if self.plan.is_dead(index) else ("done", 0)
            lines += [dict(by="a", what=what, index=index, queueId=record["queueId"], attempts=attempts, at=0,
                           queueOffset=record["queueOffset"]) for what in ("begin", end)]
        return lines

    def dead(self):
        return [self.record(index, 0, chain.ATTEMPTS_MAX + 1) for index in self.plan.messages if self.plan.is_dead(index)]

    def begun(self, offset, what="begin", by="a"):
        return dict(by=by, what=what, index=self.first(lambda i: self.plan.word(i) == "ok"), queueId=0,
                    queueOffset=offset, attempts=0, at=0)

    def test_the_same_seed_is_the_same_plan(self):
        again = chain.Plan(7, "run", [JAVA], 200, 10, [("broker", 1, 1)])
        self.assertEqual((again.messages, again.events), (self.plan.messages, self.plan.events))

    def test_all_right_is_ok(self):
        self.assertEqual(self.stored_wrong(), {})

    def test_what_is_lost_doubled_displaced_or_early_is_seen(self):
        plain = self.first(lambda i: self.plan.messages[i]["kind"] == "plain")
        late = self.first(lambda i: self.plan.messages[i]["delay_ms"] > 0)
        topic = self.stored[self.plan.messages[plain]["topic"]]
        at = next(n for n, record in enumerate(topic) if record["keys"] == self.plan.messages[plain]["key"])
        lost = topic.pop(at)
        self.assertEqual(self.stored_wrong(), {"lost": 1, "displaced": 1})
        self.found = chain.Found()
        topic += [lost, dict(lost, queueOffset=99)]
        self.assertEqual(self.stored_wrong(), {"twice": 1})
        self.found = chain.Found()
        topic[-1] = self.record(late, 98)
        self.acks[late]["attempts"] = 2
        topic[-1]["storeTimestamp"] = 1_100
        self.assertEqual(self.stored_wrong(), {"early": 1})

    def test_one_message_that_was_sent_again_when_the_broker_had_gone_is_stored_once(self):
        plain = self.first(lambda i: self.plan.messages[i]["kind"] == "plain")
        topic = self.stored[self.plan.messages[plain]["topic"]]
        ours = next(record for record in topic if record["keys"] == self.plan.messages[plain]["key"])
        ours["properties"] = dict(UNIQ_KEY="7F01")
        self.acks[plain]["attempts"] = 2
        for key, wrong in (("7F01", {"twice": 1}), ("7F02", {})):
            again = dict(ours, queueOffset=99, properties=dict(UNIQ_KEY=key))
            topic.append(again)
            self.assertEqual(self.stored_wrong([(plain - 1, plain + 1)]), wrong, key)
            self.found = chain.Found()
            self.assertEqual(self.stored_wrong(), {}, "nobody knows why it was tried again")
            topic.remove(again)

    def test_what_was_rolled_back_and_is_seen_is_seen(self):
        index = self.first(self.plan.is_rolled_back)
        self.stored[self.plan.messages[index]["topic"]].append(self.record(index, 99))
        self.assertEqual(self.stored_wrong(), {"rolled back and seen": 1})

    def test_what_nobody_is_done_with_is_seen_unless_it_is_dead(self):
        group = self.groups[0]
        lines = self.lines(group)
        self.assertEqual(self.consumed_wrong(group, lines, dead=self.dead()), {})
        self.assertEqual(self.consumed_wrong(group, lines[2:], dead=self.dead()), {"not consumed": 1})
        self.found = chain.Found()
        wrong = self.consumed_wrong(group, lines, dead=self.dead()[1:])
        self.assertEqual(wrong, {"not dead": 1})

    def test_a_retry_that_nobody_asked_for_is_seen(self):
        group = self.groups[0]
        again = self.record(int(self.stored[self.plan.topics[group.mode]][0]["body"].split()[0]), 0, 1)
        wrong = self.consumed_wrong(group, self.lines(group), retried=[again, again], dead=self.dead())
        self.assertEqual(wrong, {"moved twice": 1})

    def test_order_is_broken_by_who_overtakes_and_by_two_at_once_and_not_by_the_dead(self):
        def order(*lines):
            found = chain.Found()
            chain.judge_order(self.plan, "g", lines, found)
            return dict(found.wrong)

        begun, killed = self.begun, dict(what="killed", by="a")
        self.assertEqual(order(begun(0), begun(0, "done"), begun(1), begun(1, "again"), begun(1), begun(1, "done")), {})
        self.assertEqual(order(begun(0), begun(0, "again"), begun(1)), {"out of order": 1})
        self.assertEqual(order(begun(1)), {"out of order": 1})
        self.assertEqual(order(begun(0), begun(0, by="b")), {"two at once": 1})
        self.assertEqual(order(begun(0), killed, begun(0, by="b"), begun(0, "done", "b"), begun(1, by="b")), {})
        self.assertEqual(order(begun(0), begun(0, "done"), begun(1), killed, begun(0, by="b")), {}, "it comes again")

    def test_what_the_log_says_twice_or_in_two_steps_is_seen(self):
        def log(*frames):
            found = chain.Found()
            chain.judge_log([item for frame in frames for item in [dict(frame="records"), *frame]], found)
            return dict(found.wrong)

        due = dict(record="put", name="due/1", payload="\\x01\\x01")
        ends = dict(record="delete", name="due/1", payload="")
        link = dict(record="link", name="T", target=8, payload="")
        half = dict(record="put", name="txn/1", payload="\\x01\\x01g")
        commit = dict(record="put", name="txn/1", payload="\\x01\\x03")
        self.assertEqual(log([due], [ends, link], [half], [commit, link]), {})
        self.assertEqual(log([due], [ends], [link]), {"not in one step": 1})
        self.assertEqual(log([due], [ends, link], [ends, link]), {"moved twice": 1})
        self.assertEqual(log([half], [commit, link], [commit, link]), {"moved twice": 2})


class Scenarios(unittest.TestCase):
    """A cell is right only when it is as expected."""

    def is_right(self, name, **lines):
        return scenarios.judge(JAVA, [name], {n: dict(result=result) for n, result in lines.items()})[name].ok

    def test_a_cell_is_what_was_expected(self):
        self.assertTrue(self.is_right("push", push="ok"))
        self.assertFalse(self.is_right("push", push="failed"))
        self.assertFalse(self.is_right("push", push="not offered"))
        self.assertFalse(self.is_right("push"), "no word of it")

    def test_what_is_expected_to_fail_and_passes_is_out_of_date(self):
        self.assertTrue(self.is_right("request-reply", **{"request-reply": "failed"}))
        self.assertFalse(self.is_right("request-reply", **{"request-reply": "ok"}))


class Mixed(unittest.TestCase):
    """A part with twenty messages over both brokers; one of them dies at 1000 ms."""

    def setUp(self):
        self.acks = [dict(index=i, status="acked", attempts=1, started=100 * i, ended=100 * i + 50, queueId=0,
                          broker=mixed.THEIRS if i % 2 and i < 10 else mixed.OURS) for i in range(20)]

    def wrong(self, count=20, killed=mixed.THEIRS, since=1000, brokers=(mixed.THEIRS, mixed.OURS)):
        return " / ".join(mixed.faults(self.acks, count, brokers, killed, since))

    def test_all_right_is_ok(self):
        self.assertEqual(self.wrong(), "")
        self.assertEqual(self.wrong(killed=None), "")

    def test_a_broker_that_got_nothing_is_seen(self):
        for ack in self.acks:
            ack["broker"] = mixed.OURS
        self.assertIn(f"{mixed.THEIRS} acknowledged nothing", self.wrong())

    def test_what_was_not_acknowledged_is_seen(self):
        self.acks[3].update(status="refused", error="no")
        self.assertIn("19 of 20", self.wrong())
        del self.acks[10:]
        self.assertIn("nothing was sent after", self.wrong())

    def test_who_is_dead_acknowledges_nothing(self):
        self.acks[15]["broker"] = mixed.THEIRS
        self.assertIn("was dead and acknowledged [15]", self.wrong())

    def test_trouble_that_does_not_end_is_seen(self):
        self.acks[19].update(started=1001 + mixed.SETTLED_MS, attempts=2)
        self.assertIn("tried again long after", self.wrong())

    def test_queues_of_the_same_number_are_told_apart_by_broker(self):
        self.assertEqual({line["queueId"] for line in mixed.placed(self.acks)}, {"broker-a:0", "broker-b:0"})
        self.assertEqual(mixed.placed([dict(status="refused")]), [dict(status="refused")])


if __name__ == "__main__":
    unittest.main()
