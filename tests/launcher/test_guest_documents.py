"""The guest's reader of YAML and JSON (`flat.awk`) says what a real YAML reader says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from compute.drivers import yaml as seed_yaml

FLAT = Path(__file__).parents[2] / "launcher/guest/root/usr/lib/guest/flat.awk"
AWK = ["busybox", "awk"] if shutil.which("busybox") else ["awk"]
ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\t": "\t"}


def read(document: str) -> dict[str, str]:
    done = subprocess.run(
        [*AWK, "-f", str(FLAT)],
        input=document.encode(),
        capture_output=True,
        check=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    pairs = (line.split("\t", 1) for line in done.stdout.decode().splitlines())
    return {path: unescaped(value) for path, value in pairs}


def unescaped(text: str) -> str:
    out, at = "", 0
    while at < len(text):
        pair = text[at : at + 2]
        out += ESCAPES.get(pair, pair[0])
        at += 2 if pair in ESCAPES else 1
    return out


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, "" if value is None else str(value)
        return
    for key, item in inner:
        step = str(key).replace("/", "~1")
        yield from flat(item, f"{path}/{step}" if path else step)


DOCUMENTS = {
    "plain": "hostname: web-1\nfqdn: web-1.example.org # trailing\nempty:\nnothing: ~\n",
    "quoted": "a: 'it''s: # here'\nb: \"x\\ty \\u4e91\\\" z\"\n'c d': e\n",
    "escapes": 'a: "\\x41\\xe9\\u00e9\\U0001f600\\/"\n',
    "keys at the same indent": "ssh_authorized_keys:\n- ssh-ed25519 AAAA me@here\n- \"ssh-rsa B== c\"\nnext: 'x'\n",
    "commands": (
        "runcmd:\n  - [ls, -l, '/a b']\n  - echo 'one' > /tmp/x\n"
        "  - - sh\n    - -c\n    - |\n      a\n\n        b\n  - last\n"
    ),
    "files": (
        "write_files:\n  - path: /etc/a\n    permissions: '0600'\n    content: |\n      x=1\n      # kept\n"
        '  - {path: /b, content: "1\\n2"}\n'
    ),
    "blocks": "keep: |+\n  a\n\nstrip: |-\n  b\n\nfold: >-\n  one\n  two\n\n  three\nend: x\n",
    "nested flow": "n: {a: [1, 2, {b: c}], 'd/e': f,\n  g: [\n    h\n  ]}\nafter: y\n",
    "chpasswd": "chpasswd:\n  expire: 'false'\n  list: |\n    root:$6$salt$hash\n    user:pa ss\n",
    "network": (
        "network:\n  version: 2\n  ethernets:\n    eth0:\n      match: {macaddress: 'fa:16:3e:00:00:01'}\n"
        "      addresses: [10.0.0.5/24]\n      nameservers:\n        addresses:\n          - 10.0.0.2\n"
    ),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_reads_what_yaml_says(document: str) -> None:
    assert read(document) == dict(flat(yaml.safe_load(document)))


text = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029\x85"), max_size=12)
scalar = text | st.integers(0, 10**6).map(str) | st.sampled_from(["true\n", "a\n b", "\\n", "\t", 'it\'s "so"'])
key = st.text("abcdefghij_-/.: ", min_size=1, max_size=8)
tree = st.recursive(
    scalar, lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(key, inner, min_size=1, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(key, tree, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_reads_any_json(document: dict[str, Any], is_ascii: bool, is_spread: bool) -> None:
    assert read(json.dumps(document, ensure_ascii=is_ascii, indent=2 if is_spread else None)) == dict(flat(document))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(key, st.lists(scalar | st.booleans(), max_size=3) | scalar, min_size=1, max_size=3))
def test_reads_what_the_platform_writes(document: dict[str, Any]) -> None:
    """What the compute driver puts on a seed disk, by its own encoder."""
    expected = {path: value.lower() if value in ("True", "False") else value for path, value in flat(document)}
    assert read(seed_yaml.encode(document)) == expected
