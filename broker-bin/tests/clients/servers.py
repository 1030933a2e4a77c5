"""What the clients talk to: our broker, the original, or one that is running already."""
import os
import signal
import socket
import subprocess
from pathlib import Path

import wire

ROOT = Path(__file__).resolve().parents[3]


def free_ports(count):
    """The first of `count` neighbouring loopback ports that nobody listens on now."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            # Moved below the range from which the system picks ports for outgoing connections.
            port = 10_000 + s.getsockname()[1] % 20_000
        try:
            for offset in range(count):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port + offset))
            return port
        except OSError:
            continue


class Server:
    """Started by us in a folder of its own, and so may be killed and started again on the same store."""

    can_be_killed = True
    remembers = True  # what was sent to it, and stores it once
    another = None  # (folder, more arguments) -> one more of it, with a store of its own
    name = "?"

    def __init__(self, work):
        self.store = Path(work) / "server"
        self.store.mkdir(parents=True, exist_ok=True)
        self.namesrv = None

    def ready(self):
        wire.until(lambda: wire.route(self.namesrv, wire.TEMPLATE), 60, f"answer from {self.name} ({self.store})")


    def broker(self):
        """Where the broker listens."""
        return wire.broker(self.namesrv)


class Anchorlog(Server):
    """`anchorlog broker`: name server and broker in one process, sync flush."""

    name = "anchorlog"

    def __init__(self, work, binary, extra):
        super().__init__(work)
        self.binary = Path(binary)
        self.port = free_ports(1)
        self.namesrv = f"127.0.0.1:{self.port}"
        self.command = [str(binary), "broker", "--store", str(self.store / "store"), "--listen", self.namesrv, *extra]
        self.binary, self.extra = binary, extra
        self.process = None

    def another(self, work, more):
        """One more of them, with a store of its own."""
        return Anchorlog(work, self.binary, [*self.extra, *more])

    def start(self):
        with open(self.store / "broker.log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        self.ready()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


class Original(Server):
    """RocketMQ 5.3.3 through perf/rocketmq: a name server that stays, a broker that can be killed; sync flush."""

    remembers = False
    name = "original"

    def __init__(self, work, heap):
        super().__init__(work)
        port = free_ports(10)
        self.namesrv = f"127.0.0.1:{port}"
        self.command = [ROOT / "perf/rocketmq/start", "--store", self.store, "--namesrv-port", str(port),
                        "--broker-port", str(port + 5), "--flush", "sync", "--heap", heap]

    def another(self, _work, _more):
        """It takes a gigabyte and half a minute: one serves all."""
        return self

    def pid(self):
        return int((self.store / "broker.pid").read_text())

    def start(self):
        # It keeps the caller's pipe open through its children, so its words go to a file.
        with open(self.store / "start.log", "ab") as log:
            subprocess.run(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
        self.ready()

    def kill(self):
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wire.until(lambda: not self.alive(), 10, "end of the killed broker")

    def alive(self):
        try:
            state = Path(f"/proc/{self.pid()}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, ValueError):
            return False
        return state != "Z"

    def stop(self):
        # Asked politely it takes its 20 s, and nobody reads this store again.
        if self.alive():
            self.kill()
        subprocess.run([ROOT / "perf/rocketmq/stop", "--store", self.store], stdin=subprocess.DEVNULL, check=False)


class Running:
    """One that was started by somebody else: never killed, never stopped."""

    can_be_killed = False
    name = "running"

    def __init__(self, namesrv):
        self.namesrv = namesrv

    def start(self):
        wire.until(lambda: wire.route(self.namesrv, wire.TEMPLATE), 10, f"answer from {self.namesrv}")

    def broker(self):
        return wire.broker(self.namesrv)

    def another(self, _work, _more):
        """Whoever started it knows what is switched on."""
        return self

    def alive(self):
        return True

    def stop(self):
        pass
