"""What is written into dnsmasq's files: nothing that somebody typed can add a line or an option."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.common.driver import Rejected
from network.drivers.linux.dnsmasq import configuration, host_line
from network.messages import DhcpHost, DhcpNetwork, Route

FOLDER = Path("/state/dhcp/x")
NETWORK = DhcpNetwork("l3", "l2", "10.0.0.2", 24, 1450)
HOST = DhcpHost("nic", "fa:00:00:00:00:01", "10.0.0.3", "web-1")


def lines(network: DhcpNetwork) -> list[str]:
    return configuration(network, FOLDER).splitlines()


def test_options() -> None:
    full = replace(
        NETWORK,
        gateway="10.0.0.1",
        dns=["10.0.0.53", "10.0.0.54"],
        domain="zone.test",
        routes=[Route("10.1.0.0/16", "10.0.0.9")],
    )
    found = lines(full)
    assert "dhcp-range=10.0.0.0,static,255.255.255.0,86400" in found
    assert "dhcp-option=option:router,10.0.0.1" in found
    assert "dhcp-option=option:dns-server,10.0.0.53,10.0.0.54" in found
    assert "dhcp-option=option:classless-static-route,10.1.0.0/16,10.0.0.9,0.0.0.0/0,10.0.0.1" in found
    assert "domain=zone.test" in found


def test_what_is_not_given_is_not_told() -> None:
    # An option without a value keeps dnsmasq from offering itself as router and name server.
    assert {"dhcp-option=option:router", "dhcp-option=option:dns-server"} <= set(lines(NETWORK))
    assert not [line for line in lines(NETWORK) if line.startswith(("domain=", "dhcp-option=option:classless"))]


_TEXT = st.one_of(st.text(), st.sampled_from(["a\nuser=root", "a,b", "#", "10.0.0.3\n", "x.org\r", "ａ"]))


@given(field=st.sampled_from(["gateway", "domain", "address"]), text=_TEXT)
def test_any_text_is_one_value_or_refused(field: str, text: str) -> None:
    changes: dict[str, Any] = {field: text}
    try:
        found = lines(replace(NETWORK, **changes))
    except Rejected:
        return
    assert len(found) <= len(lines(NETWORK)) + 1
    assert all(line.isascii() and "," not in text for line in found)


@given(mac=_TEXT, ip=_TEXT, name=_TEXT)
def test_any_host_is_one_line_or_refused(mac: str, ip: str, name: str) -> None:
    for host in (replace(HOST, mac=mac), replace(HOST, ip=ip), replace(HOST, hostname=name)):
        try:
            line = host_line(host)
        except Rejected:
            continue
        assert line.count("\n") == 1
        assert line.count(",") == 2


def test_wrong_values_are_refused() -> None:
    for broken in (
        replace(NETWORK, dns=["nonsense"]),
        replace(NETWORK, prefix=99),
        replace(NETWORK, routes=[Route("10.1.0.1/16", "10.0.0.9")]),
        replace(NETWORK, routes=[Route("10.1.0.0/16", "x")]),
    ):
        with pytest.raises(Rejected) as caught:
            lines(broken)
        assert caught.value.code == "dhcp_value_refused"
