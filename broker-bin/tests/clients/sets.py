"""Several brokers that hold one log, as processes, with wires between them that a stage can cut.

`Wire` is a TCP proxy: it cuts connections at any byte, and swallows what goes over it in either direction. `Set` starts
brokers `a`, `b`, ... whose replicas meet each other through wires only; clients connect directly.
"""
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import wire
from servers import free_ports


class Wire:
    """Between whoever connects and one local port."""

    def __init__(self, target):
        self.target, self.open, self.lock = target, set(), threading.Lock()
        self.swallows = {"there": False, "back": False}
        self.cut_after = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 3)
            except OSError:
                near.close()
                continue
            left = [self.cut_after]
            with self.lock:
                self.open |= {near, far}
            for way, source, sink in (("there", near, far), ("back", far, near)):
                threading.Thread(target=self.carry, args=(way, source, sink, left), daemon=True).start()

    def carry(self, way, source, sink, left):
        try:
            while data := source.recv(1 << 16):
                if self.swallows[way]:
                    continue
                if left[0] is not None:
                    data, rest = data[:left[0]], data[left[0]:]
                    left[0] -= len(data)
                    sink.sendall(data)
                    if rest or not left[0]:
                        break
                else:
                    sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            self.end(end)

    def end(self, end):
        with self.lock:
            self.open.discard(end)
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        end.close()

    def cut(self, after=None):
        """Cuts what is connected; from now on each connection after so many bytes."""
        self.cut_after = after
        for end in list(self.open):
            self.end(end)

    def swallow(self, there, back):
        self.swallows = {"there": there, "back": back}

    def close(self):
        self.listener.close()
        self.cut(0)


class Set:
    """Brokers with one log: `copies` of each message before it is acknowledged. The first begins as leader."""

    def __init__(self, work, binary, names, extra, copies=2):
        self.work, self.binary, self.names = Path(work), Path(binary), names
        self.work.mkdir(parents=True)
        self.extra, self.copies, self.processes = extra, copies, {}
        base = free_ports(2 * len(names))
        self.ports = dict(zip(names, range(base, base + len(names))))
        self.inner = dict(zip(names, range(base + len(names), base + 2 * len(names))))
        self.wires = {name: Wire(self.inner[name]) for name in names}

    def address(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def store(self, name):
        return self.work / name

    def start(self, name):
        listed = ",".join(f"{n}={self.address(n)}+127.0.0.1:{self.wires[n].port}" for n in self.names)
        role = "leader" if name == self.names[0] else "slave"
        command = [self.binary, "broker", "--store", self.store(name), "--listen", self.address(name), "--role", role,
                   "--replica-id", name, "--replica-listen", f"127.0.0.1:{self.inner[name]}", "--replicas", listed,
                   "--copies", self.copies, *self.extra]
        with open(self.work / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                                    stdout=log, stderr=log, start_new_session=True)

    def signal(self, name, what):
        self.processes[name].send_signal(what)

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name):
        """As an operator does; returns how long it took."""
        began = time.time()
        self.processes[name].terminate()
        self.processes[name].wait(60)
        return time.time() - began

    def tool(self, name, word):
        """`anchorlog promote|demote|replicas` at one broker: whether it was done, and what it said."""
        command = [str(self.binary), word, "--at", f"127.0.0.1:{self.inner[name]}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.returncode == 0, (done.stdout + done.stderr).strip()

    def takes(self, name, seconds):
        """Sends to one broker until it is acknowledged; how long that took."""
        began = time.time()
        while True:
            try:
                fields = dict(a="PID_first", b=wire.TEMPLATE + "_TRY", c=wire.TEMPLATE, d=4, e=0, f=0,
                              g=int(time.time() * 1000), h=0, i="", j=0, k="false", m="false")
                code, remark, _, _ = wire.call(self.address(name), wire.SEND_V2, fields, b"try", 3)
                if code == wire.SUCCESS:
                    return time.time() - began
            except OSError as e:
                code, remark = None, e
            if time.time() > began + seconds:
                raise TimeoutError(f"{name} acknowledges nothing within {seconds} s: {code} {remark}")
            time.sleep(0.02)

    def end(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        for one in self.wires.values():
            one.close()


class Asking:
    """Sends to a broker all the time, each message once, and notes every answer and its time."""

    PATIENCE = 3

    def __init__(self, address, topic):
        self.address, self.topic, self.answers, self.over = address, topic, [], False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        number = 0
        while not self.over:
            number += 1
            began = time.time()
            fields = dict(a="PID_asking", b=self.topic, c=wire.TEMPLATE, d=4, e=0, f=0, g=int(began * 1000), h=0,
                          i=f"KEYS\x01first\x02UNIQ_KEY\x01asking-{number}\x02", j=0, k="false", m="false")
            try:
                code = wire.call(self.address, wire.SEND_V2, fields, b"asking %d" % number, self.PATIENCE)[0]
            except TimeoutError:
                code = "nothing"
            except OSError:
                code = "gone"
            self.answers.append((began, time.time() - began, code))
            time.sleep(0.01 if code == wire.SUCCESS else 0.05)

    def since(self, began):
        return [answer for answer in self.answers if answer[0] >= began]

    def acknowledged_after(self, began, seconds):
        """How long after `began` something that was sent since then was acknowledged."""
        while True:
            for sent, took, code in self.since(began):
                if code == wire.SUCCESS:
                    return sent + took - began
            if time.time() > began + seconds:
                raise TimeoutError(f"nothing is acknowledged within {seconds} s; last: {self.answers[-1:]}")
            time.sleep(0.02)

    def end(self):
        self.over = True
        self.thread.join()
        return self.answers


def limit_files(process, size):
    """The longest that files of a process may become."""
    subprocess.run(["prlimit", "--pid", str(process.pid), f"--fsize={size}:"], check=True)


STOP, GO = signal.SIGSTOP, signal.SIGCONT

