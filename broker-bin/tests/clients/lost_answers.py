"""The stage `lost-answers`: clients whose answers are lost on their way try again by themselves, and every message is there once.

A proxy stands between clients and broker. Of the answers to sends it swallows some, and the connection ends with each of them:

  cut      both ends close at once
  silence  the broker's end closes; the client is left waiting until it gives up

A client that gives up tries the same message again, with the id that it gave it the first time.
"""
import json
import random
import socket
import struct
import threading
import time

import plans
from servers import free_ports

SENDS = (10, 310, 320)
# Above every driver's own timeout of this stage.
SILENCE_SECONDS = 4


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


def read_frame(stream):
    """One frame with its length word."""
    length = exactly(stream, 4)
    return length + exactly(stream, struct.unpack(">I", length)[0])


def head(frame):
    """(code, opaque, is an answer) of a frame, whichever way its header is written."""
    word = struct.unpack(">I", frame[4:8])[0]
    header = frame[8:8 + (word & 0xFFFFFF)]
    if word >> 24 == 0:
        found = json.loads(header)
        return found["code"], found["opaque"], bool(found.get("flag", 0) & 1)
    code, _, _, opaque, flag = struct.unpack(">hbhii", header[:13])
    return code, opaque, bool(flag & 1)


class Proxy:
    """Listens at `port` for `target`, which tells its clients to come here; `share` of the answers to sends is swallowed."""

    def __init__(self, port, target, seed):
        self.target, self.share = target, 0
        self.rng, self.lock = random.Random(seed), threading.Lock()
        self.swallowed = {"cut": 0, "silence": 0}
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        sends = set()
        try:
            host, port = self.target.rsplit(":", 1)
            broker = socket.create_connection((host, int(port)), 5)
            broker.settimeout(None)
        except OSError:
            client.close()
            return
        threading.Thread(target=self.forward, args=(client, broker, sends), daemon=True).start()
        how = None
        try:
            while how is None:
                frame = read_frame(broker)
                _, opaque, is_answer = head(frame)
                if is_answer and opaque in sends:
                    sends.discard(opaque)
                    how = self.choose()
                if how is None:
                    client.sendall(frame)
        except OSError:
            pass
        # Whoever waits for bytes of it is woken by this, not by closing.
        for end in (broker, client) if how != "silence" else (broker,):
            shut(end)
        if how == "silence":
            time.sleep(SILENCE_SECONDS)
            shut(client)
        broker.close()
        client.close()

    def forward(self, client, broker, sends):
        try:
            while True:
                frame = read_frame(client)
                code, opaque, is_answer = head(frame)
                if code in SENDS and not is_answer:
                    sends.add(opaque)
                broker.sendall(frame)
        except OSError:
            shut(broker)

    def choose(self):
        """What becomes of the answer to a send."""
        with self.lock:
            if self.rng.random() >= self.share:
                return None
            how = self.rng.choice(("cut", "cut", "cut", "silence"))
            self.swallowed[how] += 1
            return how

    def stop(self):
        self.listener.close()


def shut(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def stage(run, say):
    """Has a broker of its own, which tells its clients the proxy's address."""
    clients = [c for c in run.clients if c.tries_again]
    if not clients:
        return run.skip("lost-answers: none of these clients tries again by itself")
    if not run.server.another:
        return run.skip("lost-answers: this server cannot be told to send its clients to the proxy")
    port = free_ports(1)
    usual, run.server = run.server, run.server.another(run.work / "lost-answers", ["--advertise", f"127.0.0.1:{port}"])
    run.server.start()
    proxy = Proxy(port, run.server.namesrv, run.id)
    try:
        send_and_read(run, say, clients, proxy)
        if not run.server.alive():
            run.fail("lost-answers: the broker died")
    finally:
        proxy.stop()
        run.server.stop()
        run.server = usual
    return None


def send_and_read(run, say, clients, proxy):
    count = 60 if run.options.quick else 300
    for client in clients:
        key = ("lost-answers", client.name)
        run.topics[key] = run.topic("lost-answers", client, create=True)
        plan = run.plans[key] = plans.Plan(run.work, run.id, client, timeout_ms=2000, retry_seconds=60, own_retries=3)
        plan.add_small(count)
    say(f"lost-answers: {len(clients)} senders, {count} messages each")

    def one(client):
        key = ("lost-answers", client.name)
        plan = run.plans[key]
        file = plan.write(f"lost-answers-{client.name}.json", plan.items)
        run.acks[key] = run.send(client, run.topics[key], file, "lost-answers", 60 + count)
        acked = sum(a["status"] == "acked" for a in run.acks[key])
        if acked < count:
            run.fail(f"lost-answers: {client.name} was acknowledged {acked} of {count}: {run.acks[key][-1:]}")

    proxy.share = 0.15
    run.side_by_side(one, clients)
    proxy.share = 0
    say(f"lost-answers: swallowed {proxy.swallowed}")
    if not all(proxy.swallowed.values()):
        run.fail(f"lost-answers: nothing was lost in one of these ways: {proxy.swallowed}")
    topics, total = run.expect("lost-answers")
    readers = clients[:1]
    read = run.finish_readers(run.start_readers(readers, "lost-read", topics, total, 90), 90)
    # Nobody was away: whatever is there twice is one too many.
    run.judge_all("lost-answers", readers, read, senders=clients)
