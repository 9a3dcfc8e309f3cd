"""Domains as Hypothesis makes them up: anything a user may type, in every place that takes text."""

from hypothesis import strategies as st

from compute.messages import CloudInit, DomainNic, DomainSpec, DomainVolume

ANY_TEXT = st.text(max_size=60)
# What XML can hold: these must come out as they went in.
XML_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=40
).filter(lambda text: text == "".join(c for c in text if ord(c) & 0xFFFE != 0xFFFE or ord(c) > 0xFFFF))
UUIDS = st.uuids().map(str)
MACS = st.integers(0, 2**40 - 1).map(lambda n: "fa:" + ":".join(f"{n:010x}"[i : i + 2] for i in range(0, 10, 2)))
PATHS = XML_TEXT.map(lambda text: "/srv/" + text.replace("/", "_"))

VOLUMES = st.builds(
    DomainVolume,
    uuid=UUIDS,
    path=PATHS,
    format=st.sampled_from(("qcow2", "raw")),
    size_bytes=st.integers(0, 2**50),
    serial=st.just(""),
    is_shareable=st.booleans(),
    is_read_only=st.booleans(),
)
NICS = st.builds(
    DomainNic,
    uuid=UUIDS,
    mac=MACS,
    bridge=XML_TEXT,
    mtu=st.integers(576, 9000),
    address=st.ip_addresses(v=4).map(str),
    prefix=st.integers(0, 32),
    gateway=st.one_of(st.just(""), st.ip_addresses(v=4).map(str)),
    dns=st.lists(st.ip_addresses().map(str), max_size=3).map(tuple),
)
# One line: what a password and a key are.
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=60)
SEEDS = st.builds(
    CloudInit,
    hostname=ANY_TEXT,
    ssh_keys=st.lists(LINES, max_size=3).map(tuple),
    password=LINES,
    user_data=ANY_TEXT,
    network=st.sampled_from(("dhcp", "static")),
)
SPECS = st.builds(
    DomainSpec,
    uuid=UUIDS,
    name=ANY_TEXT,
    cpu=st.integers(1, 240),
    memory_bytes=st.integers(1, 2**30).map(lambda kib: kib * 1024),
    project=UUIDS,
    volumes=st.lists(VOLUMES, max_size=4, unique_by=lambda v: v.uuid).map(tuple),
    nics=st.lists(NICS, max_size=3, unique_by=lambda n: n.uuid).map(tuple),
    seed=st.one_of(st.none(), SEEDS),
    machine=st.sampled_from(("pc", "q35")),
)
