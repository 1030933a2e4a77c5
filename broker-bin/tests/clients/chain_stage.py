"""Plays the chain: starts producers and consumers, kills them and the broker as the plan says, waits, and judges."""
import atexit
import json
import subprocess
import threading
import time

import chain
import wire
from judge import read_lines

# Halves are asked about soon here, or a run would wait a minute for nothing; small files make the log's tools quick.
BROKER_ARGS = ["--transaction-timeout", "2s", "--transaction-check-interval", "2s", "--segment-bytes", "16MiB"]
# Clients that gave up while the broker was away, and are started again.
REVIVALS_MAX = 20


class Member:
    """A consumer's place in its group; whoever fills it has a name of its own."""

    def __init__(self, play, group, number):
        self.play, self.group, self.number = play, group, number
        self.lives, self.process, self.name, self.lock = 0, None, None, threading.Lock()

    def start(self):
        play, group = self.play, self.group
        self.name = f"{group.mode[0]}-{group.client.name}-{self.number}.{self.lives}"
        self.lives += 1
        self.process = play.drivers.start(
            group.client, f"chain-{play.plan.seed}-{self.name}", "chain-consume", play.server.namesrv, group.name(play.plan.run),
            play.plan.topics[group.mode], group.mode, self.name, play.seen[group.name(play.plan.run)])

    def kill(self):
        self.play.drivers.end(self.process)
        # Behind everything that it wrote: from here on it works on nothing.
        with open(self.play.seen[self.group.name(self.play.plan.run)], "ab", buffering=0) as out:
            out.write((json.dumps({"what": "killed", "by": self.name}) + "\n").encode())

    def has_given_up(self):
        """Whether it ended, and nobody ended it: the Java client does when no broker answers while it starts."""
        return self.process.poll() is not None


class Producer:
    """A sender's place; when it was killed, the next one goes on behind the last message that was written down."""

    def __init__(self, play, client, number):
        self.play, self.client, self.number = play, client, number
        self.lives, self.process, self.lock = 0, None, threading.Lock()
        self.items = play.plan.of_producer[number]
        self.acked = play.work / f"chain-{number}-{client.name}.acked"

    def start(self):
        play = self.play
        known = {line["index"] for line in read_lines(self.acked)}
        left = [item for item in self.items if item["index"] not in known]
        if self.lives and left:
            # The one before it may have sent this, and not lived to write it down.
            play.doubtful.add(left[0]["index"])
        file = play.plan.write(play.work / f"chain-{self.number}.{self.lives}.json", left)
        self.lives += 1
        self.process = play.drivers.start(self.client, f"chain-{play.plan.seed}-p{self.number}.{self.lives}", "chain-send",
                                          play.server.namesrv, f"PID_chain_{play.plan.run}", file, self.acked)

    def kill(self):
        self.play.drivers.end(self.process)

    def has_given_up(self):
        """Whether it ended, and nobody ended it."""
        return self.process.poll() is not None and not self.is_through()

    def is_through(self):
        return len({line["index"] for line in read_lines(self.acked)}) == len(self.items)


class Play:
    """One seed."""

    def __init__(self, say, drivers, server, plan, groups, producers, work):
        self.say, self.drivers, self.server = say, drivers, server
        self.plan, self.groups, self.work = plan, groups, work
        self.seen = {group.name(plan.run): work / f"{group.name(plan.run)}.seen" for group in groups}
        self.producers = [Producer(self, client, number) for number, client in enumerate(producers)]
        self.members = [Member(self, group, number) for group in groups for number in range(group.members)]
        self.away, self.doubtful, self.revived = [], set(), 0
        self.troubles = []

    def play(self, seconds):
        """Runs it all; `seconds`: how long to wait for the end."""
        for topic in self.plan.topics.values():
            wire.make_topic(self.server.namesrv, topic, chain.QUEUES)
        for one in [*self.members, *self.producers]:
            one.start()
        self.wait_for(lambda: all(p.acked.exists() for p in self.producers), 60, "the first message")
        began = time.time()
        returns = []
        for event in self.plan.events:
            time.sleep(max(0, began + event.at - time.time()))
            if event.who == "broker":
                self.strike_broker(event.away)
            else:
                some = self.members if event.who == "consumer" else self.producers
                timer = threading.Thread(target=self.strike, args=(some[event.which % len(some)], event))
                timer.start()
                returns.append(timer)
        for timer in returns:
            timer.join()
        self.say(f"chain: {len(self.acks())} sent, the last one is back")
        self.wait_for(lambda: all(p.is_through() for p in self.producers), 120, "the senders")
        self.say(f"chain: all {len(self.acks())} sent")
        self.wait_for(self.is_done, seconds, "the consumers")
        self.say("chain: all consumed")

    def wait_for(self, true, seconds, what):
        end = time.time() + seconds
        while not true():
            if time.time() > end:
                self.troubles.append(f"{what} did not come to an end within {seconds} s")
                return
            self.revive()
            time.sleep(0.3)

    def revive(self):
        """Starts those again that gave up. Others do it on a machine where nobody kills them, so it is counted, and bounded."""
        for one in [*self.members, *self.producers]:
            if not one.has_given_up() or not one.lock.acquire(blocking=False):
                continue
            try:
                if one.has_given_up() and self.revived < REVIVALS_MAX:
                    self.revived += 1
                    one.kill()
                    one.start()
                    self.say(f"chain: {one.__class__.__name__.lower()} {one.number} had given up and is started again")
            finally:
                one.lock.release()

    def strike(self, one, event):
        with one.lock:
            one.kill()
            time.sleep(event.away)
            one.start()

    def strike_broker(self, away):
        since = int(time.time() * 1000)
        self.server.kill()
        time.sleep(away)
        self.server.start()
        self.away.append((since - chain.TIMEOUT_MS, int(time.time() * 1000) + chain.TIMEOUT_MS))

    def acks(self):
        return [line for p in self.producers for line in read_lines(p.acked)]

    def is_done(self):
        acked = {line["index"] for line in self.acks() if line["status"] == "acked"}
        for group in self.groups:
            lines = read_lines(self.seen[group.name(self.plan.run)])
            if chain.must_be_done(self.plan, group, acked) - chain.done_by(self.plan, group, lines):
                return False
            wanted = chain.must_be_dead(self.plan, group, acked)
            if wanted and wanted - {int(r["body"].split()[0]) for r in self.dead(group)}:
                return False
        return True

    def dead(self, group):
        return wire.read_all(self.server.namesrv, f"%DLQ%{group.name(self.plan.run)}")

    def judge(self):
        """What is wrong at the end, and what was counted."""
        found = chain.Found()
        stored = {topic: wire.read_all(self.server.namesrv, topic) for topic in self.plan.topics.values()}
        acked, visible = chain.judge_stored(self.plan, self.acks(), stored, self.away, self.doubtful, found,
                                            self.server.remembers)
        for group in self.groups:
            name = group.name(self.plan.run)
            retried = wire.read_all(self.server.namesrv, f"%RETRY%{name}")
            chain.judge_group(self.plan, group, acked, visible, read_lines(self.seen[name]), retried,
                              self.dead(group), self.away, found)
        return found

    def end(self):
        for one in [*self.members, *self.producers]:
            if one.process:
                self.drivers.end(one.process)


def log_of(server):
    """The log as its own tool shows it, one object a line; the tool's complaint, if there is one."""
    binary, store = server.command[0], str(server.store / "store")
    verified = subprocess.run([binary, "log", "verify", "--store", store], capture_output=True, text=True, check=False)
    if verified.returncode:
        return [], f"log verify: {verified.returncode} {verified.stdout[-500:]} {verified.stderr[-500:]}"
    shown = subprocess.run([binary, "log", "dump", "--store", store, "--count", str(1 << 40), "--payload-bytes", "4",
                            "--json"], capture_output=True, text=True, check=False)
    if shown.returncode:
        return [], f"log dump: {shown.returncode} {shown.stderr[-500:]}"
    return [json.loads(line) for line in shown.stdout.splitlines()], None


def stage(run):
    """Plays one seed, or as many as were asked for, and fills `run.chains`."""
    if not run.server.can_be_killed:
        return run.skip("chain: the server was started by somebody else (--namesrv)")
    by_name = {c.name: c for c in run.clients}
    able = [by_name[n] for n in ("java5", "go", "java4") if n in by_name]
    if not able:
        return run.skip("chain: no client that can produce")
    in_order = [by_name[n] for n in ("java5", "go", "python", "java4") if n in by_name]
    for number in range(1 if run.options.quick else run.options.rounds):
        # What a round is called stands in every name: the original's one store serves them all.
        one_seed(run, run.options.seed + number, f"{run.id}_{number}", able, in_order)


def one_seed(run, seed, name, able, in_order):
    """Plays a seed to its end and judges it."""
    quick = run.options.quick
    if quick:
        count, seconds, patience = 240, 20, 120
        kills = [("broker", 2, 1), ("consumer", 5, 2), ("producer", 1, 2)]
        # Go never unlocks what it gives away, so a queue that changes hands between two of its members rests for the
        # minute that a lock lasts: not in a quick run.
        groups = [chain.Group(able[0], chain.CONCURRENT, 2)]
        groups += [chain.Group(c, chain.ORDERLY, 1 if c.name == "go" else 2) for c in in_order[:3]]
    else:
        count, seconds, patience = 900, 60, 240
        kills = [("broker", 5, 4), ("consumer", 24, 5), ("producer", 4, 4)]
        groups = [chain.Group(c, chain.CONCURRENT, 2) for c in able] + [chain.Group(c, chain.ORDERLY, 2) for c in in_order]
    producers = able[:2]
    plan = chain.Plan(seed, name, producers, count, seconds, kills, apart=quick)
    work = run.work / f"chain-{seed}"
    work.mkdir()
    server = run.server.another(work, BROKER_ARGS)
    run.say(f"chain: seed {seed}: {count} messages, {len(plan.events)} kills in {seconds} s, "
        f"{', '.join(f'{g.mode} {g.client.name} x {g.members}' for g in groups)}")
    play = Play(run.say, run.drivers, server, plan, groups, producers, work)
    is_own = server is not run.server
    try:
        if is_own:
            atexit.register(server.stop)
            server.start()
        play.play(patience)
        found = play.judge()
        play.end()
        if is_own:
            server.stop()
            items, trouble = log_of(server)
            chain.judge_log(items, found)
            play.troubles += [trouble] if trouble else []
    finally:
        play.end()
        if is_own:
            server.stop()
    run.chains.append(dict(seed=seed, counts=dict(found.counts), wrong=dict(found.wrong), notes=found.notes,
                           troubles=play.troubles))
    run.say(f"chain: seed {seed}: {', '.join(f'{n} {what}' for what, n in sorted(found.counts.items()))}")
    for text in [*play.troubles, *found.notes]:
        run.fail(f"chain: seed {seed}: {text}")
