"""The stage `mixed`: a broker of ours beside one of the original's, in one cluster, known to the original's name server.

  part    what happens meanwhile                    what must hold
  both    nothing                                   acknowledgements by both brokers
  theirs  the original's broker dies of SIGKILL     everything is acknowledged, soon by ours alone; then it comes back
  ours    our broker dies of SIGKILL                everything is acknowledged, soon by the original's alone; then it comes back
  none    the name server dies of SIGKILL; a new    it finds both brokers by asking ours: acknowledgements by both
          producer knows its address and our broker's
  restarted  our broker, too, dies and comes back   it knows the other one still: acknowledgements by both
  read    a new consumer that knows ours alone      everything that was acknowledged, from both brokers
  again   the name server comes back                both brokers tell it again, without a restart
"""
import collections
import os
import signal
import time

import plans
import wire
from judge import judge, positions, read_lines
from servers import Original

THEIRS, OURS, CLUSTER = "broker-a", "broker-b", "DefaultCluster"
QUEUES = 4
# After a kill, a producer may try what it knew for so long: its own limit for one answer, three times.
SETTLED_MS = 10_000


def spread(acks):
    """How many messages each broker has acknowledged."""
    return collections.Counter(a.get("broker") for a in acks if a["status"] == "acked")


def faults(acks, count, brokers, killed=None, since=None):
    """What is wrong with a part: `brokers` must each have acknowledged something; `killed` was not there any more `since` (ms)."""
    found, by = [], spread(acks)
    if sum(by.values()) != count:
        refused = [a for a in acks if a["status"] != "acked"]
        found.append(f"{sum(by.values())} of {count} messages were acknowledged: {refused[:1] or 'the others were not tried'}")
    found += [f"{broker} acknowledged nothing: {dict(by)}" for broker in brokers if not by[broker]]
    found += [f"acknowledged by {broker}" for broker in by if broker not in (THEIRS, OURS)]
    if killed:
        ghosts = [a["index"] for a in acks if a["status"] == "acked" and a.get("broker") == killed and a["started"] > since]
        found += [f"{killed} was dead and acknowledged {ghosts}"] if ghosts else []
        late = [a for a in acks if a["started"] > since + SETTLED_MS and a["attempts"] > 1]
        found += [f"{len(late)} messages were tried again long after {killed} had died: {late[0]}"] if late else []
        if not any(a["status"] == "acked" and a["started"] > since for a in acks):
            found.append(f"nothing was sent after {killed} had died")
    return found


def placed(lines):
    """Queues by broker, so that those of the same number are told apart."""
    return [{**line, "queueId": f"{line['broker']}:{line['queueId']}"} if "broker" in line else line for line in lines]


def routed(namesrv, topic):
    """The brokers that a name server names for a topic."""
    found = wire.route(namesrv, topic)
    return sorted(queues["brokerName"] for queues in found["queueDatas"]) if found else []


class Cluster:
    """The original's name server and broker, and ours beside them."""

    def __init__(self, run):
        work = run.work / "mixed"
        self.original = Original(work / "original", run.options.heap)
        self.name_server = self.original.namesrv
        self.ours = run.server.another(work / "ours", ["--broker-name", OURS, "--cluster-name", CLUSTER,
                                                       "--name-servers", self.name_server])
        # Whoever runs the drivers asks for this.
        self.namesrv = self.name_server

    def start(self):
        self.original.start()
        self.ours.start()
        self.both_are_known(wire.TEMPLATE, 60)

    def both_are_known(self, topic, seconds, at=None):
        at = at or self.name_server
        wire.until(lambda: routed(at, topic) == [THEIRS, OURS], seconds, f"route of {topic} over both brokers at {at}")

    def make_topic(self, topic):
        fields = dict(topic=topic, defaultTopic=wire.TEMPLATE, readQueueNums=QUEUES, writeQueueNums=QUEUES, perm=6,
                      topicFilterType="SINGLE_TAG", topicSysFlag=0, order="false")
        data = {d["brokerName"]: d["brokerAddrs"]["0"] for d in wire.route(self.name_server, wire.TEMPLATE)["brokerDatas"]}
        for name in (THEIRS, OURS):
            code, remark, _, _ = wire.call(data[name], wire.CREATE_TOPIC, fields)
            if code != wire.SUCCESS:
                raise wire.Refused(f"making {topic} at {name}: {code} {remark}")
        self.both_are_known(topic, 40)
        self.both_are_known(topic, 60, at=self.ours.namesrv)

    def kill_name_server(self):
        pid = int((self.original.store / "namesrv.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)

    def stop(self):
        self.ours.stop()
        self.original.stop()


def stage(run, say):
    """Runs all parts; what was wrong is the run's."""
    if run.server.name != "anchorlog":
        run.not_offered.append("mixed: this server is to be ours")
        return
    clients = [client for client in run.clients if client.folder == "java"]
    if not clients:
        run.skip("mixed: it takes a Java client")
        return
    clients = clients[:1] if run.options.quick else clients
    cluster = Cluster(run)
    usual, run.server = run.server, cluster
    try:
        say("mixed: the original's name server and broker, and ours beside them")
        cluster.start()
        play(run, say, cluster, clients)
    except (TimeoutError, wire.Refused) as e:
        run.fail(f"mixed: {e}")
    finally:
        run.server = usual
        cluster.stop()


def play(run, say, cluster, clients):
    few, many = (40, 160) if run.options.quick else (100, 300)
    for client in clients:
        key = ("mixed", client.name)
        run.topics[key] = run.topic("mixed", client, create=False)
        cluster.make_topic(run.topics[key])
        run.plans[key] = plans.Plan(run.work, run.id, client, timeout_ms=3000, retry_seconds=60, pace_ms=30, own_retries=3)
        run.acks[key] = []
    away = []

    def part(name, count, brokers, kill=None, restart=None):
        say(f"mixed: {name}: {len(clients)} senders, {count} messages each")
        senders = []
        for client in clients:
            key = ("mixed", client.name)
            plan = run.plans[key]
            file = plan.write(f"mixed-{name}-{client.name}.json", plan.add_small(count))
            acked = run.work / f"mixed-{name}-{client.name}.acked"
            process = run.drivers.start(client, f"mixed-{name}", "send", cluster.namesrv, run.topics[key], file, acked)
            senders.append((client, process, acked))
        since = None
        if kill:
            wire.until(lambda: all(len(read_lines(acked)) >= count // 4 for _, _, acked in senders), 60, "senders in the middle")
            began = int(time.time() * 1000)
            kill[1]()
            since = int(time.time() * 1000)
            away.append((began, since + 3000))
        for client, process, acked in senders:
            why = run.drivers.finish(process, 180)
            lines = read_lines(acked)
            run.acks["mixed", client.name] += lines
            wrong = ([f"sender {why}"] if why else []) + faults(lines, count, brokers, kill and kill[0], since)
            for text in wrong:
                run.fail(f"mixed: {name}: {client.name}: {text}")
            longest = max((line["ended"] - line["started"] for line in lines), default=0)
            say(f"mixed: {name}: {client.name}: {dict(spread(lines))}, the longest send took {longest} ms")
        if restart:
            restart()
            for client in clients:
                cluster.both_are_known(run.topics["mixed", client.name], 60)

    part("both", few, (THEIRS, OURS))
    part("theirs", many, (THEIRS, OURS), (THEIRS, cluster.original.kill), cluster.original.start)
    part("ours", many, (THEIRS, OURS), (OURS, cluster.ours.kill), cluster.ours.start)
    for client in clients:
        cluster.both_are_known(run.topics["mixed", client.name], 60, at=cluster.ours.namesrv)
    cluster.kill_name_server()
    cluster.namesrv = f"{cluster.name_server};{cluster.ours.namesrv}"
    part("none", few, (THEIRS, OURS))
    # Our broker alone is left to ask, and has just come up again.
    cluster.ours.kill()
    cluster.ours.start()
    cluster.namesrv = cluster.ours.namesrv
    part("restarted", few, (THEIRS, OURS))
    read(run, say, clients, away)
    say("mixed: again: the name server comes back")
    cluster.original.start()
    for client in clients:
        cluster.both_are_known(run.topics["mixed", client.name], 90)


def read(run, say, clients, away):
    topics = [run.topics["mixed", client.name] for client in clients]
    total = sum(sum(spread(run.acks["mixed", client.name]).values()) for client in clients)
    reader = clients[0]
    say(f"mixed: {reader.name} reads {total} messages from both brokers")
    found = placed(run.finish_readers(run.start_readers([reader], "mixed-read", topics, total, 120), 120)[reader.name])
    for client in clients:
        key = ("mixed", client.name)
        cell = judge(run.plans[key], placed(run.acks[key]), found, run.topics[key], reader, positions(found), away=away)
        run.cells["mixed", client.name, reader.name] = cell
        if not cell.ok:
            run.fail(f"mixed: {client.name} read by {reader.name}: {cell}; {'; '.join(cell.notes)}")
