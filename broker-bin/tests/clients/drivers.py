"""The clients: what each one is, how its driver is built, what its interface can carry.

A driver is a small program around one unmodified client. All have one command line (README.md has the details):

    DRIVER send NAMESRV TOPIC PLAN.json ACKED.jsonl
    DRIVER consume NAMESRV GROUP TOPIC[,TOPIC...] EXPECT SECONDS OUT.jsonl [orderly]
    DRIVER scenarios NAMESRV BROKER RUN NAME[,NAME...] PARALLEL OUT.jsonl
"""
import dataclasses
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


class BuildFailed(Exception):
    """A driver could not be built; the text names the log."""


@dataclasses.dataclass
class Client:
    """One pinned client. The flags say what its interface offers, not what the broker should do."""

    name: str
    package: str
    folder: str
    tools: tuple
    build: object  # (client, cache folder, run) -> None
    command: object  # (client, cache folder) -> list
    creates_topics: bool = True  # falls back on TBW102 when the topic is unknown
    sends_properties: bool = True
    reads_properties: bool = True
    sends_nul: bool = True  # a body with a NUL byte leaves unharmed
    reads_bytes: bool = True  # a body that is not text arrives unharmed
    reads_position: bool = True  # shows queue id and queue offset of a received message
    four_mib: bool = True  # lets bodies up to 4 MiB through unless told otherwise
    starts_slowly: bool = False
    may_hang_at_exit: bool = False  # its driver kills itself (SIGKILL) once everything is written
    orderly: bool = True  # offers consumption with queue locks
    tries_again: bool = False  # its driver lets it send again by itself, with the same id
    plays: bool = False  # its driver plays scenarios
    signs: bool = False  # its driver signs as an account
    speaks_tls: bool = False  # it speaks TLS, as the JVM's properties say
    platforms: tuple = ()  # (system, machine) pairs the package has binaries for; empty: any
    options: dict = dataclasses.field(default_factory=dict)

    def unavailable(self):
        """Why this client cannot run here, or None."""
        here = (platform.system(), platform.machine())
        if self.platforms and here not in self.platforms:
            return f"{self.package} has no binary for {here[0]} {here[1]}"
        missing = [tool for tool in self.tools if not shutil.which(tool)]
        return f"{', '.join(missing)} not found" if missing else None

    def prepare(self, cache, log):
        """Builds the driver unless its sources are the ones built last time."""
        source = HERE / self.folder
        digest = hashlib.sha256(repr((self.package, self.options)).encode())
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            digest.update(str(file.relative_to(source)).encode() + file.read_bytes())
        home = Path(cache) / self.name
        stamp = home / "built"
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        home.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        with open(log, "w", encoding="utf-8") as out:

            def run(*command, **keywords):
                keywords.setdefault("cwd", source)
                env = {**os.environ, **keywords.pop("env", {})}
                done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out,
                                      stderr=subprocess.STDOUT, env=env, check=False, **keywords)
                if done.returncode:
                    raise BuildFailed(f"{self.name}: {command[0]} ended with {done.returncode}, see {log}")

            self.build(self, home, run)
        stamp.write_text(digest.hexdigest())


def build_java(client, home, run):
    lib, classes = home / "lib", home / "classes"
    shutil.rmtree(lib, ignore_errors=True)
    run("mvn", "-q", "-B", f"-Drocketmq.version={client.options['version']}", "dependency:copy-dependencies",
        f"-DoutputDirectory={lib}")
    shutil.rmtree(classes, ignore_errors=True)
    sources = [file.name for file in sorted((HERE / "java").glob("*.java"))]
    run("javac", "-encoding", "UTF-8", "-cp", f"{lib}/*", "-d", classes, *sources)


def java(client, home):
    return ["java", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true",
            "-Duser.home=.", "-cp", f"{home}/classes:{home}/lib/*", "Driver"]


def build_go(client, home, run):
    run("go", "build", "-mod=readonly", "-trimpath", "-o", home / "driver", ".", env={"GOTOOLCHAIN": "local"})


def build_rust(client, home, run):
    run("cargo", "build", "--locked", env={"CARGO_TARGET_DIR": str(home / "target")})


def build_node(client, home, run):
    for file in (HERE / "node").iterdir():
        if file.is_file():
            shutil.copy2(file, home)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=home)


def build_python(client, home, run):
    run("python3", "-m", "venv", "--clear", home / "venv")
    run(home / "venv/bin/pip", "install", "-q", "--no-deps", "--require-hashes", "-r", "requirements.txt")


NATIVE_NODE = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"), ("Darwin", "arm64"))

CLIENTS = [
    Client("java5", "Maven rocketmq-client 5.3.3", "java", ("java", "javac", "mvn"), build_java, java,
           starts_slowly=True, plays=True, tries_again=True, signs=True, speaks_tls=True, options={"version": "5.3.3"}),
    Client("java4", "Maven rocketmq-client 4.9.8", "java", ("java", "javac", "mvn"), build_java, java,
           starts_slowly=True, plays=True, tries_again=True, speaks_tls=True, options={"version": "4.9.8"}),
    Client("go", "Go rocketmq-client-go/v2 v2.1.2", "go", ("go",), build_go, lambda c, home: [f"{home}/driver"],
           plays=True, tries_again=True, signs=True),
    Client("rust", "crate rocketmq-client-rust 1.0.0", "rust", ("cargo",), build_rust,
           lambda c, home: [f"{home}/target/debug/driver"]),
    Client("ali-ons", "npm ali-ons 3.12.0", "node", ("node", "npm"), build_node,
           lambda c, home: ["node", f"{home}/ali_ons.js"], creates_topics=False, orderly=False),
    Client("nodejs", "npm rocketmq-nodejs 1.1.2", "node", ("node", "npm"), build_node,
           lambda c, home: ["node", f"{home}/rocketmq_nodejs.js"], sends_properties=False, reads_properties=False,
           reads_bytes=False, reads_position=False, orderly=False, may_hang_at_exit=True,
           platforms=NATIVE_NODE),
    Client("python", "PyPI rocketmq 0.4.4", "python", ("python3",), build_python,
           lambda c, home: [f"{home}/venv/bin/python", str(HERE / "python/driver.py")], sends_nul=False,
           reads_bytes=False, four_mib=False, platforms=(("Linux", "x86_64"),)),
]
