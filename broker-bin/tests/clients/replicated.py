"""The stages with several brokers: `pair` hurts a leader and its slave, `rolling` restarts three brokers one by one."""
import contextlib
import shutil
import time

import plans
import wire
from judge import read_lines
from sets import GO, STOP, Asking, Set, limit_files

CLIENTS = ("java5", "go")
# Seconds: what a client waits for an answer, and what a pair may take to go on once it is healed.
ANSWERED, BACK = 3, 10
SEGMENT = "1MiB"


class Stage:
    """Real clients that send through it all, and one of our own that notes every answer."""

    def __init__(self, run, name, brokers):
        self.run, self.name, self.away = run, name, []
        self.clients = [c for c in run.clients if c.name in CLIENTS]
        extra = ["--segment-bytes", SEGMENT, *run.options.broker_args.split()]
        self.set = Set(run.work / name, run.server.binary, brokers, extra)
        self.senders, self.asking = [], None

    def say(self, text):
        self.run.say(f"{self.name}: {text}")

    def begin(self, count, namesrv):
        """All brokers run and every client sends `count` messages, trying each again until it is acknowledged."""
        for name in self.set.names:
            self.set.start(name)
        leader = self.set.names[0]
        self.set.takes(leader, 30)
        run, self.namesrv = self.run, namesrv
        for client in self.clients:
            key = (self.name, client.name)
            topic = run.topics[key] = f"T_{self.name}_{client.name}_{run.id}"
            wire.create_topic(self.set.address(leader), topic)
            run.created.add(topic)
            plan = run.plans[key] = plans.Plan(run.work, run.id, client, timeout_ms=ANSWERED * 1000, retry_seconds=90,
                                               pace_ms=20)
            file = plan.write(f"{self.name}-{client.name}.json", plan.add_small(count))
            acked = run.work / f"{self.name}-{client.name}.acked"
            process = run.drivers.start(client, self.name, "send", namesrv, topic, file, acked)
            self.senders.append((client, process, acked))
        begun = lambda: all(len(read_lines(acked)) >= 20 for _, _, acked in self.senders)
        wire.until(begun, 60, "20 acknowledgements each")
        self.asking = Asking(self.set.address(leader), f"T_{self.name}_asking")
        time.sleep(1)

    @contextlib.contextmanager
    def hurt(self, what, seconds):
        """`seconds` after what is done inside, the caller heals."""
        self.say(what)
        self.since = time.time()
        yield
        time.sleep(seconds)

    def heal(self, how):
        healed = time.time()
        how()
        took = self.asking.acknowledged_after(healed, BACK)
        self.say(f"back after {took:.1f} s")
        self.away.append((int(self.since * 1000), int((time.time() + ANSWERED) * 1000)))
        time.sleep(0.5)

    def finish(self, seconds):
        """Every sender comes to its end with everything acknowledged."""
        for client, process, acked in self.senders:
            why = self.run.drivers.finish(process, seconds)
            key = (self.name, client.name)
            lines = self.run.acks[key] = read_lines(acked)
            stored, count = sum(a["status"] == "acked" for a in lines), len(self.run.plans[key].items)
            if why or stored < count:
                self.run.fail(f"{self.name}: {client.name} was acknowledged {stored} of {count}: {why}; {lines[-1:]}")

    def judge(self, leader_died):
        answers = self.asking.end()
        count = {code: sum(1 for _, _, c in answers if c == code) for code in {c for _, _, c in answers}}
        slowest = max(took for _, took, _ in answers)
        self.say(f"{len(answers)} asked by hand, answers by code {count}, the slowest after {slowest:.1f} s")
        if count.get("nothing") or slowest >= ANSWERED + 0.2:
            self.run.fail(f"{self.name}: an answer took {slowest:.1f} s")
        if count.get("gone") and not leader_died:
            self.run.fail(f"{self.name}: {count['gone']} connections ended although the leader lived")
        strange = set(count) - {wire.SUCCESS, 10, 12, 14, "gone"}
        if strange:
            self.run.fail(f"{self.name}: answers that make no sense here: {strange}")

    def read(self, seconds, namesrv):
        """Every client reads what every client sent; judged as after a kill."""
        run, before = self.run, self.run.server
        run.server = type("Names", (), {"namesrv": namesrv})
        try:
            topics, total = run.expect(self.name)
            self.say(f"{len(self.clients)} readers for {total} messages")
            readers = run.start_readers(self.clients, f"{self.name}-read", topics, total, seconds)
            read = run.finish_readers(readers, seconds)
        finally:
            run.server = before
        everyone, run.clients = run.clients, self.clients
        try:
            run.judge_all(self.name, self.clients, read, away=self.away)
        finally:
            run.clients = everyone


def offered(run, name):
    """Whether the stage can be run, or why not."""
    if not hasattr(run.server, "binary"):
        run.skip(f"{name}: only brokers of ours hold one log together")
    elif not any(c.name in CLIENTS for c in run.clients):
        run.skip(f"{name}: it wants one of {', '.join(CLIENTS)}")
    else:
        return True
    return False


def pair(run):
    if not offered(run, "pair"):
        return
    stage = Stage(run, "pair", ["a", "b"])
    try:
        hurt_pair(stage, run.options.quick)
    finally:
        stage.set.end()


def hurt_pair(stage, quick):
    pair, say = stage.set, stage.say
    stage.begin(1200 if quick else 2600, pair.address("a"))
    with stage.hurt("SIGKILL of the slave", 3):
        pair.kill("b")
    stage.heal(lambda: pair.start("b"))
    with stage.hurt("SIGKILL of the leader", 0.5):
        pair.kill("a")
    stage.heal(lambda: pair.start("a"))
    with stage.hurt("the slave stands still", 4):
        pair.signal("b", STOP)
    stage.heal(lambda: pair.signal("b", GO))
    ways = [(True, True)] if quick else [(True, False), (False, True), (True, True)]
    for there, back in ways:
        with stage.hurt(f"the wire swallows: to the leader {there}, to the slave {back}", 4):
            for one in pair.wires.values():
                one.swallow(there, back)
        stage.heal(lambda: [one.swallow(False, False) for one in pair.wires.values()])
    with stage.hurt("the wire is cut at any byte", 0):
        for number in range(20 if quick else 60):
            pair.wires["a"].cut(number * number * 97 % 20011)
            time.sleep(0.1)
    stage.heal(pair.wires["a"].cut)
    with stage.hurt("the slave is wiped", 1):
        pair.kill("b")
        shutil.rmtree(pair.store("b"))
    stage.heal(lambda: pair.start("b"))
    with stage.hurt("the slave's files may not grow", 4):
        limit_files(pair.processes["b"], 100_000)
    stage.heal(lambda: limit_files(pair.processes["b"], "unlimited"))
    stage.finish(150)
    stage.judge(leader_died=True)
    say("the leader and its disk are gone: what the slave alone has")
    pair.kill("a")
    shutil.rmtree(pair.store("a"))
    done, words = pair.tool("b", "promote")
    if not done:
        return stage.run.fail(f"pair: {words}")
    pair.start("a")
    pair.takes("b", 30)
    stage.read(90, pair.address("b"))


def rolling(run):
    if not offered(run, "rolling"):
        return
    for names in (["a", "b", "c"], ["a", "b"]):
        stage = Stage(run, f"rolling{len(names)}", names)
        try:
            roll(stage)
        finally:
            stage.set.end()


def roll(stage):
    """Every broker is restarted once, the leader last, and gives leadership away first."""
    brokers, names, say, run = stage.set, stage.set.names, stage.say, stage.run
    has_spare = len(names) > 2
    everybody = ";".join(brokers.address(name) for name in names)
    stage.begin(900 if run.options.quick else 1800, everybody)
    for name in names[1:]:
        began = time.time()
        brokers.stop(name)
        brokers.start(name)
        stage.asking.acknowledged_after(time.time(), BACK)
        wire.until(lambda: in_sync(brokers, "a") == len(names) - 1, 30, "all slaves in sync")
        failed = [code for _, _, code in stage.asking.since(began) if code != wire.SUCCESS]
        longest = gap(stage.asking.since(began - 1))
        say(f"{name}, a slave, was restarted: {len(failed)} sends failed; nothing was acknowledged for {longest:.2f} s")
        if has_spare and failed:
            run.fail(f"{stage.name}: the restart of the slave {name} failed {len(failed)} sends: {failed[:5]}")
        stage.away.append((int(began * 1000), int((time.time() + ANSWERED) * 1000)))
    began = time.time()
    done, words = brokers.tool("b", "promote")
    if not done:
        return run.fail(f"{stage.name}: {words}")
    after = Asking(brokers.address("b"), f"T_{stage.name}_asking")
    took = after.acknowledged_after(began, BACK)
    last = max((sent + took for sent, took, code in stage.asking.answers if code == wire.SUCCESS), default=began)
    stopped = began + took - last
    say(f"leadership moved to b: {stopped:.2f} s from the last acknowledgement of a to the first of b")
    if stopped >= ANSWERED:
        run.fail(f"{stage.name}: nobody acknowledged for {stopped:.2f} s")
    # Whoever follows b by now is enough for b's acknowledgements, but a must not be the only one when it goes.
    wire.until(lambda: in_sync(brokers, "b") == len(names) - 1, 30, "all slaves in sync")
    restarted = time.time()
    brokers.stop("a")
    brokers.start("a")
    wire.until(lambda: in_sync(brokers, "b") == len(names) - 1, 30, "all slaves in sync")
    failed = [code for _, _, code in after.since(restarted) if code != wire.SUCCESS]
    say(f"a, which had led, was restarted: {len(failed)} sends failed")
    if has_spare and failed:
        run.fail(f"{stage.name}: the restart of the former leader failed {len(failed)} sends: {failed[:5]}")
    stage.asking.end()
    stage.asking = after
    stage.away.append((int(began * 1000), int((time.time() + 60) * 1000)))
    stage.finish(150)
    for client in stage.clients:
        longest = longest_wait(run.acks[stage.name, client.name])
        say(f"{client.name} tried {longest:.2f} s to send the message that took longest")
    stage.judge(leader_died=False)
    stage.read(90, brokers.address("b"))


def in_sync(brokers, leader):
    """How many slaves the leader says are in sync."""
    return brokers.tool(leader, "replicas")[1].count("yes         yes")


def gap(answers):
    """The longest time between two acknowledgements."""
    ends = [sent + took for sent, took, code in answers if code == wire.SUCCESS]
    return max((later - earlier for earlier, later in zip(ends, ends[1:])), default=0)


def longest_wait(lines):
    return max((a["ended"] - a["started"] for a in lines), default=0) / 1000
