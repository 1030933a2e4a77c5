"""The stage `mqadmin`: the original's own tool, one command after the other, judged by what it prints.

mqadmin ends with 0 whatever happens, so the text decides: the columns and words that it prints against the original broker must be there,
and no exception. The same table runs against the original (`run --original --stages mqadmin`), which keeps it honest.
"""
import re
import shutil
import signal
import os
import subprocess
import time

import wire
from drivers import Client

MESSAGES = 10
ANSWERED = r"Exception|CODE: \d+|command failed"


def build(client, home, run):
    lib, classes = home / "lib", home / "classes"
    shutil.rmtree(lib, ignore_errors=True)
    run("mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={lib}")
    run("javac", "-encoding", "UTF-8", "-cp", f"{lib}/*", "-d", classes, "Operator.java")


def command(client, home):
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true",
            "-Duser.home=.", "-Drocketmq.home.dir=.", "-cp", f"{home}/classes:{home}/lib/*", "Operator"]


TOOL = Client("mqadmin", "Maven rocketmq-tools 5.3.3", "mqadmin", ("java", "javac", "mvn"), build, command)


class Shell:
    """An operator's shell: a live producer and a live consumer, and commands beside them."""

    def __init__(self, run, topic, group):
        home = run.work / "mqadmin"
        home.mkdir(parents=True)
        self.process = subprocess.Popen([*TOOL.command(TOOL, run.options.cache / TOOL.name), run.server.namesrv, topic, group],
                                        cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=open(home / "stderr", "w", encoding="utf-8"), start_new_session=True)
        self.log = open(home / "stdout", "w", encoding="utf-8")
        self.sent, self.client_id, self.consumed = [], None, 0
        for line in self.process.stdout:
            self.log.write(line)
            words = line.rstrip("\n").split("\t")
            if words[0] == "#sent":
                self.sent.append(words[1:])
            if words[0] == "#ready":
                self.consumed, self.client_id = int(words[1]), words[2]
                break

    def ask(self, *words):
        """Runs one command; returns what it prints."""
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        self.log.write(f"#> {' '.join(words)}\n")
        lines = []
        for line in self.process.stdout:
            self.log.write(line)
            if line == "#<\n":
                return "".join(lines)
            lines.append(line)
        raise ConnectionError(f"the tool ended in the middle of {words[0]}")

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()


class Table:
    """Which command was asked, and what was missing in its words."""

    def __init__(self, shell):
        self.shell, self.rows = shell, []

    def check(self, title, words, *wanted, unwanted=ANSWERED):
        """Asks; every pattern of `wanted` must be there, `unwanted` must not."""
        began = time.time()
        text = self.shell.ask(*words)
        wrong = [f"lacks {pattern!r}" for pattern in wanted if not re.search(pattern, text, re.M)]
        found = re.search(unwanted, text) if unwanted else None
        if found:
            around = text[max(0, found.start() - 20):found.start() + 240]
            wrong.append(f"says {' '.join(around.split())!r}")
        self.rows.append({"command": title, "ok": not wrong, "wrong": wrong, "seconds": round(time.time() - began, 1)})
        return text


def offsets(text):
    """The table of queue and offset that resets print."""
    return {int(queue): int(offset) for queue, offset in re.findall(r"^\S+ +(\d+) +(\d+) *$", text, re.M)}


def progress(text, topic):
    """Queue -> (broker's offset, group's offset, difference) of consumerProgress."""
    found = re.findall(rf"^{re.escape(topic)} +\S+ +(\d+) +(\d+) +(\d+) +(\d+) ", text, re.M)
    return {int(queue): (int(broker), int(group), int(behind)) for queue, broker, group, behind in found}


def stage(run):
    """Runs the table; returns its rows."""
    why = TOOL.unavailable()
    if why:
        return run.skip(f"mqadmin: {why}")
    TOOL.prepare(run.options.cache, run.options.cache / "mqadmin.log")
    namesrv, ours = run.server.namesrv, run.server.name == "anchorlog"
    broker = wire.broker(namesrv)
    data = wire.route(namesrv, wire.TEMPLATE)["brokerDatas"][0]
    name, cluster = data["brokerName"], data["cluster"]
    topic, group = f"T_mqadmin_{run.id}", f"GID_mqadmin_{run.id}"
    other_topic, other_group = topic + "_other", group + "_other"
    shell = Shell(run, topic, group)
    try:
        if shell.consumed < MESSAGES:
            run.fail(f"mqadmin: {shell.consumed} of {MESSAGES} messages were consumed: see {run.work}/mqadmin")
            return None
        table = Table(shell)
        commands(run, table, shell, dict(namesrv=namesrv, broker=broker, name=name, cluster=cluster, topic=topic, group=group,
                                         other_topic=other_topic, other_group=other_group, ours=ours))
    finally:
        shell.end()
    for row in table.rows:
        if not row["ok"]:
            run.fail(f"mqadmin: {row['command']}: {'; '.join(row['wrong'])}")
    return table.rows


def commands(run, table, shell, at):
    """Every command, with what it prints against the original."""
    namesrv, broker, name, topic, group = at["namesrv"], at["broker"], at["name"], at["topic"], at["group"]
    cluster, other_topic, other_group, ours = at["cluster"], at["other_topic"], at["other_group"], at["ours"]
    message_id, place, queue, offset = shell.sent[0]
    quick = run.options.quick

    def check(words, *wanted, title=None, **more):
        return table.check(title or words[0], [words[0], "-n", namesrv, *words[1:]], *wanted, **more)

    address = re.escape(broker)
    # ---- what there is
    check(["clusterList"], r"^#Cluster Name +#Broker Name +#BID +#Addr +#Version +#InTPS\(LOAD\) +#OutTPS\(LOAD\)",
          rf"^{cluster} +{name} +0 +{address} +\S+ +[\d.]+\(0,0ms\) +[\d.]+\(0,0ms\|0,0ms\).* true$")
    check(["clusterList", "-m"], r"#InTotalYest +#OutTotalYest +#InTotalToday +#OutTotalToday",
          rf"^{cluster} +{name} +\d+ +\d+ +\d+ +\d+ *$", title="clusterList -m")
    check(["topicList"], rf"^{topic}$", rf"^%RETRY%{group}$", r"^TBW102$")
    check(["topicList", "-c"], r"^#Cluster Name +#Topic +#Consumer Group", rf"^{cluster} +{topic} +{group} *$", title="topicList -c")
    check(["topicRoute", "-t", topic], r'"brokerName":"' + name, r'"perm":6', r'"readQueueNums":4', r'"writeQueueNums":4')
    check(["topicClusterList", "-t", topic], rf"^{cluster}$")
    check(["topicStatus", "-t", topic], r"^#Broker Name +#QID +#Min Offset +#Max Offset +#Last Updated",
          rf"^{name} +0 +0 +\d+ +\d\d\d\d-\d\d-\d\d ", r"^Topic Put TPS: ")
    # ---- topics and groups
    check(["updateTopic", "-b", broker, "-t", topic, "-r", "8", "-w", "8"], rf"^create topic to {address} success\.",
          r"readQueueNums=8, writeQueueNums=8, perm=RW-", title="updateTopic -b")
    check(["updateTopic", "-c", cluster, "-t", other_topic, "-r", "2", "-w", "2"], rf"^create topic to {address} success\.",
          title="updateTopic -c")
    check(["updateTopicPerm", "-b", broker, "-t", other_topic, "-p", "6"], r"new perm equals to the old one", title="updateTopicPerm, same")
    check(["updateTopicPerm", "-b", broker, "-t", other_topic, "-p", "4"], rf"update topic perm from 6 to 4 in {address} success")
    check(["updateSubGroup", "-b", broker, "-g", other_group], rf"^create subscription group to {address} success\.",
          rf"groupName={other_group}, consumeEnable=true", title="updateSubGroup -b")
    check(["getConsumerConfig", "-g", other_group], rf"^groupName +=  {other_group}$", r"^consumeBroadcastEnable +=  false$")
    # ---- progress and connections
    text = check(["consumerProgress", "-g", group], r"^#Topic +#Broker Name +#QID +#Broker Offset +#Consumer Offset +#Diff +#Inflight +#LastTime",
                 r"^Consume TPS: ", r"^Consume Diff Total: 0$", title="consumerProgress -g")
    rows = progress(text, topic)
    if len(rows) != 8 or sum(row[0] for row in rows.values()) != MESSAGES or any(row[0] != row[1] for row in rows.values()):
        run.fail(f"mqadmin: consumerProgress -g says {rows} of {MESSAGES} messages, all consumed, in 8 queues")
    check(["consumerProgress"], r"^#Group +#Count +#Version +#Type +#Model +#TPS +#Diff Total", rf"^{group} +1 +V5_3_3 +PUSH +CLUSTERING +\d+ +0$")
    check(["consumerConnection", "-g", group], r"^#ClientId +#ClientAddr +#Language +#Version", rf"^{re.escape(shell.client_id)} +127\.0\.0\.1:\d+ +JAVA +V5_3_3",
          r"^#Topic +#SubExpression", rf"^{topic} +\*", r"^ConsumeType: CONSUME_PASSIVELY", r"^MessageModel: CLUSTERING", r"^ConsumeFromWhere: CONSUME_FROM_FIRST_OFFSET")
    check(["consumerStatus", "-g", group], r"^1 +\S+live +V5_3_3", r"^Same subscription in the same group of consumer", r"^Rebalance OK")
    # ---- finding
    found = [rf"^Topic: +{topic}$", r"^Tags: +\[TagA\]$", r"^Keys: +\[key-0\]$", rf"^Queue ID: +{queue}$", rf"^Queue Offset: +{offset}$",
             rf"^Store Host: +{address}$", rf"UNIQ_KEY={message_id}"]
    tracked = rf"MessageTrack \[consumerGroup={group}, trackType=CONSUMED, exceptionDesc=null\]"
    # The original lists a topic's own name as a group, and stumbles over it.
    stumble = ANSWERED if ours else r"command failed"
    check(["queryMsgById", "-i", place, "-t", topic], rf"^OffsetID: +{place}$", *found, tracked, unwanted=stumble)
    check(["queryMsgByKey", "-t", topic, "-k", "key-0"], r"^#Message ID +#QID +#Offset", rf"^{message_id} +{queue} +{offset} *$")
    check(["queryMsgByOffset", "-t", topic, "-b", name, "-i", queue, "-o", offset], *found, tracked, unwanted=stumble)
    check(["queryMsgByUniqueKey", "-t", topic, "-i", message_id], *found, tracked, unwanted=stumble)
    check(["queryMsgByUniqueKey", "-t", topic, "-i", message_id, "-g", group, "-d", shell.client_id],
          r"CR_SUCCESS", title="queryMsgByUniqueKey -d")
    check(["queryMsgTraceById", "-i", message_id], r"^#Type +#ProducerGroup +#ClientHost +#SendTime +#CostTimes +#Status",
          rf"^Pub +PID_{topic} +.* success")
    check(["queryCq", "-b", broker, "-t", topic, "-q", queue, "-i", "0", "-c", "3"], r"^max: \d+, min: 0", r"ConsumeQueueData\{physicOffset=\d+, physicSize=\d+, tagsCode=2598919")
    if ours:
        # Refused with a reason, not answered with nothing.
        check(["queryMsgByKey", "-t", topic, "-k", "nobody"], unwanted=r"^[0-9A-F]{32}", title="queryMsgByKey, unknown")
    # ---- the broker
    check(["brokerStatus", "-b", broker], r"^brokerVersionDesc +: \S", r"^putTps +: [\d.]+ ", r"^msgPutTotalTodayNow +: \d+", r"^runtime +: \[ 0 days, ")
    check(["brokerConsumeStats", "-b", broker], r"^#Topic +#Group +#Broker Name +#QID +#Broker Offset +#Consumer Offset +#Diff",
          rf"^{topic} +{group} +{name} +0 ", r"^Diff Total: \d+")
    if not quick:
        check(["statsAll"], r"^#Topic +#Consumer Group +#Accumulation +#InTPS +#OutTPS +#InMsg24Hour +#OutMsg24Hour",
              rf"^{topic} +{group} +0 +[\d.]+ +[\d.]+ +\d+ +\d+", rf"^{other_topic} .* NO_CONSUMER")
    check(["getBrokerConfig", "-b", broker], rf"^=+{address}=+$", rf"^brokerName +=  {name}$", r"^flushDiskType +=  SYNC_FLUSH$", r"^maxMessageSize +=  \d+$")
    check(["updateBrokerConfig", "-b", broker, "-k", "maxMessageSize", "-v", "4000000"], rf"^update broker config success, {address}")
    check(["getBrokerConfig", "-b", broker], r"^maxMessageSize +=  4000000$", title="getBrokerConfig, after")
    check(["updateBrokerConfig", "-b", broker, "-k", "maxMessageSize", "-v", "4194304"], rf"^update broker config success, {address}",
          title="updateBrokerConfig, back")
    if ours:
        for key, value, says in (("maxMesageSize", "1", "did you mean maxMessageSize"), ("flushDiskType", "ASYNC_FLUSH", "takes a restart"),
                                 ("fileReservedTime", "1", "means nothing here")):
            check(["updateBrokerConfig", "-b", broker, "-k", key, "-v", value], says, unwanted="success", title=f"updateBrokerConfig, {key}")
    check(["getNamesrvConfig"], rf"^=+{re.escape(namesrv)}=+$", r"^listenPort +=  \d+$")
    # ---- reading and writing
    if not quick:
        check(["printMsg", "-t", topic], r"^minOffset=0, maxOffset=\d+, MessageQueue", rf"^MSGID: {message_id} MessageExt ")
        check(["consumeMessage", "-t", topic, "-g", other_group], r"^Consume ok", rf"^MSGID: {message_id} MessageExt ", r"status=NO_NEW_MSG")
        check(["checkMsgSendRT", "-t", topic, "-a", "3", "-s", "10"], r"^#Broker Name +#QID +#Send Result +#RT", rf"^{name} +\d+ +true +\d+", r"^Avg RT: ")
    check(["sendMessage", "-t", topic, "-p", "hello"], r"^#Broker Name +#QID +#Send Result +#MsgId", rf"^{name} +\d+ +SEND_OK +[0-9A-F]{{32}}")
    check(["allocateMQ", "-t", topic, "-i", "10.0.0.1"], r'\{"result":\{"10\.0\.0\.1":\[\{"brokerName":"' + name)
    check(["wipeWritePerm", "-b", name], rf"wipe write perm of broker\[{name}\] in name server\[.*\] OK, \d+")
    check(["topicRoute", "-t", topic], r'"perm":4', title="topicRoute, wiped")
    check(["addWritePerm", "-b", name], rf"add write perm of broker\[{name}\] in name server\[.*\] OK, \d+")
    check(["topicRoute", "-t", topic], r'"perm":6', title="topicRoute, added")
    # ---- producers: one that has no other connection to make says who it is after 30 s
    wire.until(lambda: wire.call(broker, 204, {"producerGroup": f"PID_{topic}"})[0] == 0, 45, "heartbeat of the producer")
    check(["producerConnection", "-g", f"PID_{topic}", "-t", topic], r"^0001 +\S+ +127\.0\.0\.1:\d+ +JAVA +V5_3_3")
    check(["producer", "-b", broker], rf"^producer group \(PID_{topic}\) instance : clientId=\S+,remoteIP=/127\.0\.0\.1:\d+, language=JAVA, version=479")
    # ---- offsets
    check(["cloneGroupOffset", "-s", group, "-d", other_group, "-t", topic], rf"clone group offset success\. srcGroup\[{group}\]")
    ends = offsets(check(["skipAccumulatedMessage", "-g", group, "-t", topic], r"^#brokerName +#queueId +#offset"))
    before = int(shell.ask("consumed"))
    back = offsets(check(["resetOffsetByTime", "-g", group, "-t", topic, "-s", "0"], r"^start reset consumer offset by specified, group",
                         r"^#brokerName +#queueId +#offset"))
    if len(ends) != 8 or sum(ends.values()) < MESSAGES or set(back.values()) != {0} or len(back) != 8:
        run.fail(f"mqadmin: offsets after a skip {ends}, and after a reset to the beginning {back}")
    if not quick or ours:
        moved(run, shell, before + sum(ends.values()))
    # ---- away with it
    check(["deleteSubGroup", "-c", cluster, "-g", other_group], rf"delete subscription group \[{other_group}\] from broker \[{address}\]")
    check(["deleteTopic", "-c", cluster, "-t", other_topic], rf"delete topic \[{other_topic}\] from cluster \[{cluster}\] success",
          rf"delete topic \[{other_topic}\] from NameServer success")
    check(["topicRoute", "-t", other_topic], "CODE: 17", unwanted=None, title="topicRoute, deleted")


def moved(run, shell, wanted):
    """A running consumer is moved by a reset: it gets everything again."""
    end, consumed = time.time() + 60, 0
    while time.time() < end and consumed < wanted:
        time.sleep(0.5)
        consumed = int(shell.ask("consumed"))
    if consumed < wanted:
        run.fail(f"mqadmin: the running consumer was not moved by resetOffsetByTime: {consumed} deliveries of {wanted} after 60 s")


def report(rows):
    """The table, one command a line."""
    width = max(len(row["command"]) for row in rows)
    lines = [f"mqadmin: {row['command'].ljust(width)}  {'ok' if row['ok'] else '; '.join(row['wrong'])}"[:200] for row in rows]
    good = sum(row["ok"] for row in rows)
    return "\n".join([*lines, f"mqadmin: {good} of {len(rows)} commands print what they print against the original"])
