"""What the senders send: messages with their bodies, written as a PLAN.json that every driver reads."""
import hashlib
import json
import random
from pathlib import Path

BODY_BYTES_MAX = 4 << 20
CITY = "Zürich 東京 🚢"
TEXT = "Grüße, 你好, привет, שלום, 🚢 — message"
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def bodies(folder, seed):
    """Writes the large bodies once; every plan in `folder` refers to them by name."""
    folder = Path(folder)
    rng = random.Random(seed)

    def letters(n):  # carries 6 bits a byte: shrinks by a quarter, never below the limit of what we want to show
        return bytes(LETTERS[b & 63] for b in rng.randbytes(n))

    contents = {
        "compressible": (TEXT * 4000).encode(),  # above every client's threshold, and much smaller once compressed
        "letters": letters(64 << 10),
        "binary": bytes(range(256)) + rng.randbytes(2744),  # below every threshold
        "binary-compressed": (bytes(range(256)) * 100) + rng.randbytes(4000),
        "near-limit": letters(BODY_BYTES_MAX - 1024),
        "at-limit": letters(BODY_BYTES_MAX),
        # Noise, so that no compression brings it below the limit; without NUL, at which a C string would end.
        "over-limit": rng.randbytes(BODY_BYTES_MAX + 1).replace(b"\0", b"\1"),
        "empty": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()}


class Plan:
    """The messages of one sender. Every message is found again by its keys, which no other message has."""

    def __init__(self, folder, run, client, timeout_ms=15_000, retry_seconds=0, pace_ms=0, open_limits=False,
                 own_retries=0):
        self.folder, self.run, self.client = Path(folder), run, client
        self.settings = dict(timeout_ms=timeout_ms, retry_seconds=retry_seconds, pace_ms=pace_ms,
                             open_limits=open_limits, own_retries=own_retries)
        self.items = {}  # index -> what is sent
        self.expected = {}  # index -> (sha256, length)

    def add(self, text=None, file=None, digest=None):
        index = len(self.items)
        keys = [f"{self.run}-{self.client.name}-{index}"]
        if index % 5 == 0:
            keys.append(f"lot-{index}")
        item = dict(index=index, tag=f"Tag{'AB'[index % 2]}", keys=keys, properties={})
        if self.client.sends_properties:
            item["properties"] = {"lot": str(index), "city": CITY}
        if file is None:
            item["text"] = text
            digest = (hashlib.sha256(text.encode()).hexdigest(), len(text.encode()))
        else:
            item["file"] = file
        self.items[index], self.expected[index] = item, digest
        return index

    def add_small(self, count):
        return [self.add(text=f"{TEXT} {len(self.items)} of {self.client.name}") for _ in range(count)]

    def write(self, name, indexes):
        """Writes the part of the plan with these indexes and returns the file."""
        path = self.folder / name
        path.write_text(json.dumps({**self.settings, "messages": [self.items[i] for i in indexes]}, ensure_ascii=False))
        return path

    def keys(self, index):
        return " ".join(self.items[index]["keys"])
