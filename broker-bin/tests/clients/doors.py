"""The stage `doors`: who may comes in, and who may not is told so.

  doors-acl     a broker that wants signatures: clients whose account may send and read everything
  doors-tls     a broker that wants TLS and a certificate of the client, by the client's own TLS
  doors-tunnel  the same for a client without TLS of its own, by a tunnel of Go's
"""
import shutil
import ssl
import subprocess
import time

import plans
import wire
from servers import free_ports

CELLS = ("doors-acl", "doors-tls", "doors-tunnel")
COUNT = 40
SECRETS = {"operator": "operator-secret-key", "application": "application-secret-key"}
ACCOUNTS = """\
accounts:
  - accessKey: operator
    secretKey: operator-secret-key
    admin: true
  - accessKey: application
    secretKey: application-secret-key
    defaultTopicPerm: DENY
    defaultGroupPerm: DENY
    topicPerms:
      - T_doors_*=PUB|SUB
      - T_closed_*=SUB
    groupPerms:
      - GID_doors_*=SUB
"""


def stage(run):
    if not run.server.another:
        return run.skip("doors: this server's doors cannot be set")
    if not shutil.which("openssl"):
        return run.skip("doors: openssl not found")
    usual = run.server
    folder = run.work / "doors"
    folder.mkdir()
    try:
        for part in (accounts, certificates):
            part(run, usual, folder)
    finally:
        run.server, wire.signer, wire.tls, run.drivers.env = usual, None, None, {}
    return None


def open_broker(run, usual, name, more):
    run.server = usual.another(run.work / name, more)
    run.server.start()


def close_broker(run):
    if not run.server.alive():
        run.fail("doors: the broker died")
    run.server.stop()


def sign_as(run, name, secret=None):
    """What drivers started from now on sign as."""
    run.drivers.env = {k: v for k, v in run.drivers.env.items() if not k.startswith("ANCHORLOG_CLIENTS_")}
    run.drivers.env["ANCHORLOG_CLIENTS_ACCESS_KEY"] = name
    run.drivers.env["ANCHORLOG_CLIENTS_SECRET_KEY"] = secret or SECRETS[name]


# ---- accounts ------------------------------------------------------------------------------------------------------


def accounts(run, usual, folder):
    clients = [c for c in run.clients if c.signs]
    if not clients:
        return run.skip("doors: none of these clients signs")
    file = folder / "plain_acl.yml"
    file.write_text(ACCOUNTS)
    wire.signer = ("operator", SECRETS["operator"])
    open_broker(run, usual, "doors-acl-server", ["--acl-file", str(file)])
    try:
        run.say(f"doors: {len(clients)} clients sign")
        sign_as(run, "application")
        send_and_read(run, "doors-acl", clients)
        nothing_denied(run, "doors-acl")
        refusals(run, clients, file)
    finally:
        close_broker(run)
    return None


def nothing_denied(run, label):
    """All that its client asked was signed, and allowed: also what no message tells of."""
    lines = (run.server.store / "broker.log").read_text(errors="replace").splitlines()
    for line in [line for line in lines if "denied a request" in line][:3]:
        run.fail(f"{label}: {line}")


def refusals(run, clients, file):
    """Wrong secrets, rules, and a change of the file."""
    for client in clients:
        closed = f"T_closed_{client.name}_{run.id}".replace("-", "_")
        wire.make_topic(run.server.namesrv, closed, 4)
        sign_as(run, "application", "a-wrong-secret-key")
        line = send_one(run, client, "wrong-secret", run.topics["doors-acl", client.name])
        if line["status"] == "acked":
            run.fail(f"doors: {client.name} was acknowledged with a wrong secret")
        sign_as(run, "application")
        line = send_one(run, client, "closed", closed)
        said = line.get("error", "") + line.get("cause", "")
        if line["status"] != "refused" or line.get("code") != 16 or "rule topic T_closed_*=SUB" not in said:
            run.fail(f"doors: {client.name} was not refused by the rule's name: {line}")
        found = reads(run, client, f"GID_closed_{client.name}_{run.id}", run.topics["doors-acl", client.name])
        if found:
            run.fail(f"doors: {client.name} read {found} messages in a group that it may not be in")
    file.write_text(ACCOUNTS.replace("T_closed_*=SUB", "T_closed_*=PUB|SUB"))
    time.sleep(3)
    for client in clients:
        closed = f"T_closed_{client.name}_{run.id}".replace("-", "_")
        line = send_one(run, client, "opened", closed)
        if line["status"] != "acked":
            run.fail(f"doors: {client.name} is refused although the file was changed: {line}")


def send_one(run, client, label, topic):
    plan = plans.Plan(run.work, run.id, client, timeout_ms=3000)
    plan.add_small(1)
    lines = run.send(client, topic, plan.write(f"doors-{label}-{client.name}.json", plan.items), f"doors-{label}", 60)
    return lines[0] if lines else {"status": "nothing was written"}


def reads(run, client, group, topic):
    """How many messages somebody gets in ten seconds."""
    out = run.work / f"doors-{group}.read"
    process = run.drivers.start(client, f"doors-{group}", "consume", run.server.namesrv, group.replace("-", "_"), topic, 1,
                                10, out)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        pass
    # A client may give up in its own way: what counts is what it got.
    run.drivers.end(process)
    return out.read_bytes().count(b"\n") if out.exists() else 0


# ---- certificates --------------------------------------------------------------------------------------------------


def certificates(run, usual, folder):
    issue(folder)
    wire.tls = ssl.create_default_context(cafile=folder / "ca.pem")
    wire.tls.load_cert_chain(folder / "script.pem", folder / "script.key")
    options = ["--tls-only", "--tls-cert", str(folder / "broker.pem"), "--tls-key", str(folder / "broker.key"),
               "--tls-client-ca", str(folder / "ca.pem")]
    wire.signer = None
    run.drivers.env = {}
    by_itself = [c for c in run.clients if c.speaks_tls]
    if by_itself:
        open_broker(run, usual, "doors-tls-server", options)
        try:
            run.say(f"doors: {len(by_itself)} clients speak TLS")
            run.drivers.env = {"JDK_JAVA_OPTIONS": " ".join((
                "-Dtls.enable=true", "-Dtls.test.mode.enable=false", "-Dtls.client.authServer=true",
                f"-Dtls.client.trustCertPath={folder}/ca.pem", f"-Dtls.client.certPath={folder}/client.pem",
                f"-Dtls.client.keyPath={folder}/client.key"))}
            send_and_read(run, "doors-tls", by_itself)
            run.drivers.env = {}
            for client in by_itself:
                line = send_one(run, client, "plain", run.topics["doors-tls", client.name])
                if line["status"] == "acked":
                    run.fail(f"doors: {client.name} was acknowledged without TLS")
        finally:
            close_broker(run)
    go = [c for c in run.clients if c.name == "go"]
    if go:
        tunneled(run, usual, folder, options, go)


def tunneled(run, usual, folder, options, clients):
    """Both doors at once: signed, and by TLS."""
    file = folder / "plain_acl.yml"
    file.write_text(ACCOUNTS)
    port = free_ports(1)
    wire.signer = ("operator", SECRETS["operator"])
    open_broker(run, usual, "doors-tunnel-server",
                [*options, "--acl-file", str(file), "--advertise", f"127.0.0.1:{port}"])
    target = run.server.namesrv
    tunnel = run.drivers.start(clients[0], "tunnel", "tunnel", f"127.0.0.1:{port}", target, folder / "ca.pem",
                               folder / "client.pem", folder / "client.key")
    try:
        # From here on everybody comes by the tunnel, the script too.
        wire.tls, run.server.namesrv = None, f"127.0.0.1:{port}"
        wire.until(lambda: wire.route(run.server.namesrv, wire.TEMPLATE), 20, "answer through the tunnel")
        sign_as(run, "application")
        run.say("doors: a client comes by a tunnel")
        send_and_read(run, "doors-tunnel", clients)
        nothing_denied(run, "doors-tunnel")
    finally:
        run.drivers.end(tunnel)
        close_broker(run)


def issue(folder):
    """An authority, and certificates of it for everybody."""
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], cwd=folder, check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=doors",
            "-days", 2)
    for name in ("broker", "client", "script"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
                f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-copy_extensions", "copy", "-days", 2, "-out", f"{name}.pem")


# ---- what they do --------------------------------------------------------------------------------------------------


def send_and_read(run, label, clients):
    """Everybody sends to a topic of its own, and reads what everybody sent."""
    for client in clients:
        key = (label, client.name)
        run.topics[key] = f"T_doors_{label[6:]}_{client.name}_{run.id}".replace("-", "_")
        wire.create_topic(run.server.namesrv, run.topics[key])
        run.created.add(run.topics[key])
        plan = run.plans[key] = plans.Plan(run.work, run.id, client)
        plan.add_small(COUNT)
        plan.add(file="letters", digest=run.bodies["letters"])

    def one(client):
        key = (label, client.name)
        file = run.plans[key].write(f"{label}-{client.name}.json", run.plans[key].items)
        run.acks[key] = run.send(client, run.topics[key], file, label, 90)
        acked = sum(a["status"] == "acked" for a in run.acks[key])
        if acked < len(run.plans[key].items):
            run.fail(f"{label}: {client.name} was acknowledged {acked} of {len(run.plans[key].items)}: {run.acks[key][-1:]}")

    run.side_by_side(one, clients)
    topics, total = run.expect(label)
    readers = run.start_readers(clients, label.replace("-", "_"), topics, total, 60)
    run.judge_all(label, clients, run.finish_readers(readers, 60), senders=clients)
