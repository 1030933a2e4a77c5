"""Just enough of the remoting protocol for the script itself: ask for a route, make a topic by sending to it."""
import base64
import hashlib
import hmac
import json
import socket
import struct
import time

ROUTE, SEND_V2, LOCK, PULL, CREATE_TOPIC = 105, 310, 41, 11, 17
SUCCESS, NOT_SUPPORTED, TOPIC_NOT_EXIST = 0, 3, 17
PULL_NOT_FOUND, PULL_RETRY, PULL_MOVED = 19, 20, 21
TEMPLATE = "TBW102"


# (access key, secret key) to sign with, and an SSL context to speak TLS by, where the server wants that.
signer = None
tls = None


class Refused(Exception):
    """The server answered with a code other than the expected ones."""


def call(address, code, fields, body=b"", seconds=5):
    """One request on a connection of its own; returns (code, remark, extFields, body)."""
    fields = {k: str(v) for k, v in fields.items()}
    if signer:
        fields["AccessKey"] = signer[0]
        signed = "".join(fields[name] for name in sorted(fields)).encode() + body
        fields["Signature"] = base64.b64encode(hmac.new(signer[1].encode(), signed, hashlib.sha1).digest()).decode()
    header = json.dumps({"code": code, "language": "JAVA", "version": 479, "opaque": 1, "flag": 0,
                         "serializeTypeCurrentRPC": "JSON", "extFields": fields}).encode()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), seconds) as plain, wrapped(plain, host) as s:
        s.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        frame = exactly(s, struct.unpack(">I", exactly(s, 4))[0])
    length = struct.unpack(">I", frame[:4])[0] & 0xFFFFFF
    answer = json.loads(frame[4:4 + length])
    return answer["code"], answer.get("remark"), answer.get("extFields") or {}, frame[4 + length:]


def wrapped(plain, host):
    return tls.wrap_socket(plain, server_hostname=host) if tls else plain


def exactly(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise ConnectionError(f"closed after {len(data)} of {n} bytes")
        data += more
    return data


def route(namesrv, topic):
    """The topic's route as the server's JSON, or None when the topic is unknown."""
    code, remark, _, body = call(namesrv, ROUTE, {"topic": topic, "acceptStandardJsonOnly": "true"})
    if code == TOPIC_NOT_EXIST:
        return None
    if code != SUCCESS:
        raise Refused(f"route of {topic}: {code} {remark}")
    return json.loads(body)


def broker(namesrv):
    """The address of the one broker."""
    return route(namesrv, TEMPLATE)["brokerDatas"][0]["brokerAddrs"]["0"]


def offers_locks(namesrv):
    """Whether queues can be locked for ordered consumption."""
    body = json.dumps({"consumerGroup": "GID_first", "clientId": "first", "mqSet": []}).encode()
    return call(broker(namesrv), LOCK, {}, body)[0] != NOT_SUPPORTED


def create_topic(namesrv, topic, queues=4):
    """Sends one message (tag and key `first`) to an unknown topic, as a producer that fell back on the template."""
    fields = dict(a="PID_first", b=topic, c=TEMPLATE, d=queues, e=0, f=0, g=int(time.time() * 1000), h=0,
                  i="TAGS\x01first\x02KEYS\x01first\x02WAIT\x01true\x02", j=0, k="false", m="false")
    code, remark, _, _ = call(broker(namesrv), SEND_V2, fields, b"first")
    if code != SUCCESS:
        raise Refused(f"first message to {topic}: {code} {remark}")
    until(lambda: route(namesrv, topic), 30, f"a route of {topic}")


def make_topic(namesrv, topic, queues):
    """Makes an empty topic, as a tool does."""
    fields = dict(topic=topic, defaultTopic=TEMPLATE, readQueueNums=queues, writeQueueNums=queues, perm=6,
                  topicFilterType="SINGLE_TAG", topicSysFlag=0, order="false")
    code, remark, _, _ = call(broker(namesrv), CREATE_TOPIC, fields)
    if code != SUCCESS:
        raise Refused(f"making {topic}: {code} {remark}")
    until(lambda: route(namesrv, topic), 30, f"a route of {topic}")


def read_all(namesrv, topic):
    """All messages of a topic, queue after queue, by offset; none when there is no such topic."""
    found = route(namesrv, topic)
    if not found:
        return []
    queues = max(max(q["readQueueNums"], q["writeQueueNums"]) for q in found["queueDatas"])
    address, records = broker(namesrv), []
    for queue in range(queues):
        offset = 0
        while True:
            fields = dict(consumerGroup="GID_first", topic=topic, queueId=queue, queueOffset=offset, maxMsgNums=32,
                          sysFlag=4, commitOffset=0, suspendTimeoutMillis=0, subscription="*", subVersion=0)
            code, remark, more, body = call(address, PULL, fields, seconds=20)
            if code == PULL_NOT_FOUND:
                break
            if code not in (SUCCESS, PULL_RETRY, PULL_MOVED):
                raise Refused(f"pull of {topic} {queue} from {offset}: {code} {remark}")
            offset = int(more["nextBeginOffset"])
            records += decode(body)
    return records


def decode(body):
    """The records of a pull's answer; only such as have IPv4 hosts and short topics."""
    at, records = 0, []
    while at < len(body):
        size, = struct.unpack_from(">I", body, at)
        queue, _, offset, physical, sys_flag, born = struct.unpack_from(">iiqqiq", body, at + 12)
        stored, = struct.unpack_from(">q", body, at + 56)
        times, = struct.unpack_from(">i", body, at + 72)
        length, = struct.unpack_from(">i", body, at + 84)
        text = body[at + 88:at + 88 + length]
        rest = at + 88 + length
        topic_length = body[rest]
        properties_at = rest + 1 + topic_length
        properties_length, = struct.unpack_from(">h", body, properties_at)
        raw = body[properties_at + 2:properties_at + 2 + properties_length].decode("utf-8", "replace")
        properties = dict(pair.split("\x01", 1) for pair in raw.split("\x02") if "\x01" in pair)
        records.append(dict(topic=body[rest + 1:properties_at].decode(), queueId=queue, queueOffset=offset,
                            physicalOffset=physical, bornTimestamp=born, storeTimestamp=stored, reconsumeTimes=times,
                            body=text.decode("utf-8", "replace"), keys=properties.get("KEYS"), properties=properties,
                            sysFlag=sys_flag))
        at += size
    return records


def until(true, seconds, what):
    """Waits for `true()`; a refused connection counts as not yet."""
    end = time.time() + seconds
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        if time.time() > end:
            raise TimeoutError(f"no {what} within {seconds} s")
        time.sleep(0.1)
