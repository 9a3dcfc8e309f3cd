"""The seed: every reader of YAML finds in it what was put in, and nothing else."""

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml as reference
from hypothesis import given
from hypothesis import strategies as st

from cloud.common.driver import Rejected, Unsupported
from compute.drivers import nocloud, yaml
from compute.messages import CloudInit, DomainNic, DomainSpec
from tests.compute.drivers.strategies import SPECS

NIC = DomainNic("n", "FA:00:00:00:00:01", "br", 1450, "10.0.0.5", 24, "10.0.0.1", ("10.0.0.2", "10.0.0.3"))
SPEC = DomainSpec(
    uuid="7c9e6679-7425-40de-944b-e07fc1f90ae7",
    name="web",
    cpu=1,
    memory_bytes=1 << 27,
    nics=(NIC,),
    seed=CloudInit("web-1", ssh_keys=("ssh-ed25519 AAAA me@here",), password="it's: #secret"),
)
SCALARS = st.one_of(st.text(), st.integers(), st.booleans())
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4))
)


def seeded(**changes: Any) -> DomainSpec:
    assert SPEC.seed is not None
    return dataclasses.replace(SPEC, seed=dataclasses.replace(SPEC.seed, **changes))


def without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in value)
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_yaml_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert reference.safe_load(yaml.encode(value)) == without_surrogates(value)


@pytest.mark.parametrize(
    "text", ["yes", "NO", "null", "~", "1", "1.5", "0x1f", "1:30", "", "- a", "a: b", "#", "2026-01-01"]
)
def test_text_stays_text(text: str) -> None:
    assert reference.safe_load(yaml.encode({"a": text, "b": [text], text or "k": 1}))["a"] == text


def test_yaml_refuses_what_is_no_data() -> None:
    with pytest.raises(TypeError):
        yaml.encode({"a": 1.5})  # type: ignore[dict-item]


@given(SPECS)
def test_what_a_user_types_stays_in_its_place(spec: DomainSpec) -> None:
    files = nocloud.documents(spec)
    if spec.seed is None:
        assert files == {}
        return
    meta = reference.safe_load(files["meta-data"])
    assert set(meta) <= {"instance-id", "local-hostname", "public-keys"}
    assert meta["instance-id"] == spec.uuid
    assert meta["local-hostname"] == without_surrogates(spec.seed.hostname)
    assert meta.get("public-keys", []) == without_surrogates(list(spec.seed.ssh_keys))
    platform = reference.safe_load(files["vendor-data" if spec.seed.user_data else "user-data"])
    assert set(platform) <= {"disable_root", "ssh_pwauth", "chpasswd"}
    if spec.seed.user_data:
        assert files["user-data"] == spec.seed.user_data
    if spec.nics:
        network = reference.safe_load(files["network-config"])
        assert [card["match"]["macaddress"] for card in network["ethernets"].values()] == [n.mac for n in spec.nics]
        assert sum("routes" in card for card in network["ethernets"].values()) <= 1


def test_without_user_data_the_platform_takes_their_place() -> None:
    files = nocloud.documents(SPEC)
    assert "vendor-data" not in files
    assert files["user-data"].startswith("#cloud-config\n")
    assert reference.safe_load(files["user-data"])["chpasswd"]["list"] == ["root:it's: #secret"]


def test_user_data_come_as_they_are_beside_the_platforms() -> None:
    script = "#!/bin/sh\r\necho 'ü' \"$x\"\n"
    files = nocloud.documents(seeded(user_data=script))
    assert files["user-data"] == script
    assert reference.safe_load(files["vendor-data"])["ssh_pwauth"] is True


@pytest.mark.parametrize("change", [{"password": "a\nbob:b"}, {"ssh_keys": ("ssh-rsa A\nssh-rsa B",)}])
def test_a_second_line_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as refused:
        nocloud.documents(seeded(**change))
    assert refused.value.code == "seed_line_break"


def test_static_network() -> None:
    network = reference.safe_load(nocloud.documents(seeded(network="static"))["network-config"])
    assert network["ethernets"]["nic0"] == {
        "match": {"macaddress": "fa:00:00:00:00:01"},
        "dhcp4": False,
        "mtu": 1450,
        "addresses": ["10.0.0.5/24"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}],
        "nameservers": {"addresses": ["10.0.0.2", "10.0.0.3"]},
    }


def test_dhcp_is_the_default() -> None:
    network = reference.safe_load(nocloud.documents(SPEC)["network-config"])
    assert network["ethernets"]["nic0"] == {"match": {"macaddress": "fa:00:00:00:00:01"}, "dhcp4": True}


@pytest.mark.skipif(shutil.which("genisoimage") is None, reason="genisoimage is not installed")
def test_the_disk_has_its_label_and_files(tmp_path: Path) -> None:
    path = tmp_path / "seeds" / "a.iso"
    nocloud.write(SPEC, path)
    nocloud.write(seeded(user_data="#!/bin/sh\n"), path)
    assert path.stat().st_mode & 0o777 == 0o600, "it may hold a password"
    assert [p.name for p in path.parent.iterdir()] == ["a.iso"]
    volume = path.read_bytes()[16 * 2048 :]
    assert volume[40:72].decode().strip() == "cidata"
    listed = subprocess.run(["isoinfo", "-i", path, "-R", "-f"], capture_output=True, text=True, check=True).stdout
    assert set(listed.split()) == {"/meta-data", "/user-data", "/vendor-data", "/network-config"}
    content = subprocess.run(["isoinfo", "-i", path, "-R", "-x", "/user-data"], capture_output=True, check=True).stdout
    assert content == b"#!/bin/sh\n"


def test_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refused:
        nocloud.write(seeded(user_data="x" * (nocloud.SIZE_LIMIT_BYTES + 1)), tmp_path / "a.iso")
    assert refused.value.code == "seed_too_large"


def test_a_host_without_a_program_for_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="genisoimage"):
        nocloud.write(SPEC, tmp_path / "a.iso")
