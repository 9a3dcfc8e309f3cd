"""The seed disk: first-boot data for the guest, as cloud-init's NoCloud wants it. Standard library and mkisofs.

Key, hostname and network come as meta-data and network-config, the user's data exactly as the user wrote them. What the
platform itself configures is vendor-data, which user data override; where there are no user data it takes their place,
for guests whose cloud-init is too small to know vendor-data.
https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from cloud.common.driver import DriverError, Rejected, Unsupported
from compute.drivers import yaml
from compute.messages import DomainNic, DomainSpec

LABEL = "cidata"
CLOUD_CONFIG = "#cloud-config\n"
MAKERS: tuple[tuple[str, ...], ...] = (("genisoimage",), ("mkisofs",), ("xorriso", "-as", "mkisofs"))
TIME_LIMIT_S = 30
SIZE_LIMIT_BYTES = 1024 * 1024


def documents(spec: DomainSpec) -> dict[str, str]:
    """File name → content of the seed of a domain that has one.

    Raises Rejected (`seed_line_break`) for a password or key of several lines, which would be several to the guest.
    """
    seed = spec.seed
    if seed is None:
        return {}
    if any(set(line) & set("\r\n") for line in (seed.password, *seed.ssh_keys)):
        raise Rejected("seed_line_break", "A password or SSH key must be a single line.")
    meta: dict[str, yaml.Value] = {"instance-id": spec.uuid, "local-hostname": seed.hostname}
    if seed.ssh_keys:
        meta["public-keys"] = list(seed.ssh_keys)
    platform = CLOUD_CONFIG + yaml.encode(_platform_config(spec))
    files = {"meta-data": yaml.encode(meta), "user-data": seed.user_data or platform}
    if seed.user_data:
        files["vendor-data"] = platform
    if spec.nics:
        files["network-config"] = yaml.encode(_network(spec.nics, is_static=seed.network == "static"))
    return files


def write(spec: DomainSpec, path: Path) -> None:
    """Make the seed of `spec` at `path`, readable for its owner only; one that is there is replaced at once.

    Raises Rejected when the data are too large, Unsupported when the machine has no program for it.
    """
    files = documents(spec)
    if sum(map(len, files.values())) > SIZE_LIMIT_BYTES:
        raise Rejected("seed_too_large", f"User data and keys must fit in {SIZE_LIMIT_BYTES} bytes together.")
    maker = _maker()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="seed-", dir=path.parent) as name:
        tree = Path(name, "tree")
        tree.mkdir()
        for file, content in files.items():
            tree.joinpath(file).write_bytes(content.encode("utf-8", "replace"))
        made = Path(name, "seed.iso")
        options = ["-quiet", "-input-charset", "utf-8", "-volid", LABEL, "-joliet", "-rational-rock"]
        _run([*maker, *options, "-output", str(made), str(tree)])
        made.chmod(0o600)
        os.replace(made, path)


def _platform_config(spec: DomainSpec) -> dict[str, yaml.Value]:
    seed = spec.seed
    config: dict[str, yaml.Value] = {"disable_root": False}
    if seed and seed.password:
        config["ssh_pwauth"] = True
        config["chpasswd"] = {"expire": False, "list": [f"root:{seed.password}"]}
    return config


def _network(nics: tuple[DomainNic, ...], *, is_static: bool) -> dict[str, yaml.Value]:
    ethernets: dict[str, yaml.Value] = {}
    has_default_route = False
    for index, nic in enumerate(nics):
        match: dict[str, yaml.Value] = {"macaddress": nic.mac.lower()}
        if not (is_static and nic.address):
            ethernets[f"nic{index}"] = {"match": match, "dhcp4": True}
            continue
        card: dict[str, yaml.Value] = {
            "match": match,
            "dhcp4": False,
            "mtu": nic.mtu,
            "addresses": [f"{nic.address}/{nic.prefix}"],
        }
        if nic.gateway and not has_default_route:
            # One default route, by the first card that has a gateway; `0.0.0.0/0`, as old readers know no `default`.
            has_default_route = True
            card["routes"] = [{"to": "::/0" if ":" in nic.gateway else "0.0.0.0/0", "via": nic.gateway}]
        if nic.dns:
            card["nameservers"] = {"addresses": list(nic.dns)}
        ethernets[f"nic{index}"] = card
    return {"version": 2, "ethernets": ethernets}


def _maker() -> list[str]:
    for program, *options in MAKERS:
        found = shutil.which(program)
        if found:
            return [found, *options]
    raise Unsupported("no_iso_program", "This host cannot make seed disks: install genisoimage or xorriso.")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise DriverError("seed_failed", f"{command[0]} did not end within {TIME_LIMIT_S} s.") from error
    if done.returncode:
        raise DriverError("seed_failed", f"{command[0]} failed ({done.returncode}): {done.stderr.strip()[-500:]}")
