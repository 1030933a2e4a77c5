"""PyPI rocketmq, the older C++ client, behind the command line every driver here has (see ../README.md).

It hands bodies over as C strings, so a body ends at its first NUL byte, and tells no queue id for a sent message.
"""
import hashlib
import json
import os
import re
import sys
import threading
import time

from rocketmq.client import Message, Producer, PushConsumer, SendStatus

USAGE = """usage: send NAMESRV TOPIC PLAN ACKED | consume NAMESRV GROUP TOPICS EXPECT SECONDS OUT [orderly] |
chain-consume NAMESRV GROUP TOPIC orderly|concurrent NAME SEEN"""
USER_PROPERTIES = ["lot", "city"]  # it can only be asked for properties by name


def now_ms():
    return int(time.time() * 1000)


def send(namesrv, topic, plan_file, acked):
    with open(plan_file, encoding="utf-8") as f:
        plan = json.load(f)
    producer = Producer(f"PID_{topic}", timeout=plan["timeout_ms"])
    if plan["open_limits"]:
        producer.set_max_message_size(16 << 20)
    producer.set_namesrv_addr(namesrv)
    producer.start()
    with open(acked, "w", encoding="utf-8", buffering=1) as out:
        for item in plan["messages"]:
            if item.get("file"):
                with open(os.path.join(os.path.dirname(plan_file), item["file"]), "rb") as f:
                    body = f.read()
            else:
                body = item["text"].encode()
            line = {"index": item["index"], "started": now_ms(), "attempts": 0}
            end = time.time() + plan["retry_seconds"]
            while True:
                line["attempts"] += 1
                if attempt(producer, topic, item, body, line) or time.time() >= end:
                    break
                time.sleep(0.2)
            line["ended"] = now_ms()
            out.write(json.dumps(line) + "\n")
            time.sleep(plan["pace_ms"] / 1000)
    producer.shutdown()


def attempt(producer, topic, item, body, line):
    """Sends once and writes down what came of it; true when the broker stored the message."""
    message = Message(topic)
    message.set_tags(item["tag"])
    message.set_keys(" ".join(item["keys"]))
    message.set_body(body)
    for name, value in item["properties"].items():
        message.set_property(name, value)
    try:
        result = producer.send_sync(message)
    except Exception as e:  # every refusal of the client is an exception of its own kind
        code = re.search(r"CODE: ?(\d+)", str(e), re.IGNORECASE)
        line.update(status="refused", by="broker" if code else "client", code=int(code[1]) if code else -1,
                    error=str(e))
        return False
    stored = result.status == SendStatus.OK
    line.update(status="acked" if stored else result.status.name, msgId=result.msg_id, queueOffset=result.offset)
    return stored


def consume(namesrv, group, topics, expect, seconds, path, orderly):
    seen, last, lock = set(), [time.time()], threading.Lock()
    out = open(path, "w", encoding="utf-8", buffering=1)
    consumer = PushConsumer(group, orderly=orderly)
    consumer.set_namesrv_addr(namesrv)
    consumer.set_thread_count(1)

    def take(m):
        body = m.body or b""
        text = lambda raw: raw.decode("utf-8", "replace") if raw is not None else None
        line = {
            "topic": m.topic,
            "keys": text(m.keys),
            "tag": text(m.tags),
            "sha256": hashlib.sha256(body).hexdigest(),
            "length": len(body),
            "properties": {name: text(m.get_property(name)) for name in USER_PROPERTIES if m.get_property(name)},
            "queueId": m.queue_id,
            "queueOffset": m.queue_offset,
            "reconsumeTimes": m.reconsume_times,
            "msgId": m.id,
            "at": now_ms(),
        }
        with lock:
            out.write(json.dumps(line) + "\n")
            seen.add((line["topic"], line["keys"]))
            last[0] = time.time()

    for topic in topics:
        consumer.subscribe(topic, take)
    consumer.start()
    end = time.time() + seconds
    while time.time() < end and not (len(seen) >= expect and time.time() - last[0] > 2):
        time.sleep(0.05)
    consumer.shutdown()
    out.close()


def chain_consume(namesrv, group, topic, orderly, name, path):
    """A consumer of the chain (../README.md): lives until it is killed. It cannot ask for a message again."""
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    consumer = PushConsumer(group, orderly=orderly)
    consumer.set_namesrv_addr(namesrv)
    consumer.set_thread_count(4)

    def take(m):
        words = m.body.decode().split()
        for what in ("begin", "done"):
            line = dict(by=name, what=what, index=int(words[0]), queueId=m.queue_id, queueOffset=m.queue_offset,
                        attempts=m.reconsume_times, at=now_ms())
            os.write(out, (json.dumps(line) + "\n").encode())
            if what == "begin" and words[1] == "slow":
                time.sleep(int(words[2]) / 1000)

    consumer.subscribe(topic, take)
    consumer.start()
    threading.Event().wait()


def main(args):
    if len(args) == 5 and args[0] == "send":
        send(*args[1:])
    elif len(args) >= 7 and args[0] == "consume":
        consume(args[1], args[2], args[3].split(","), int(args[4]), int(args[5]), args[6], args[7:] == ["orderly"])
    elif len(args) == 7 and args[0] == "chain-consume":
        chain_consume(args[1], args[2], args[3], args[4] == "orderly", args[5], args[6])
    else:
        sys.exit(USAGE)
    # The native library's own threads may outlive the interpreter and crash it on the way out.
    os._exit(0)


main(sys.argv[1:])
