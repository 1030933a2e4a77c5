#!/usr/bin/env python3
"""The judge must see each kind of mistake: `python3 judge_test.py`."""
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

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


if __name__ == "__main__":
    unittest.main()
