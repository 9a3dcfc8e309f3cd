"""The catalogue is one list that agents, store and readers agree on."""

import re
import subprocess
import sys

import pytest

from monitoring.catalogue import BY_ALIAS, MEASUREMENTS, METRICS, Kind, Unit, resolve

SUFFIX = {Unit.PERCENT: "percent", Unit.BYTES: "bytes", Unit.SECONDS: "seconds"}


def test_names_are_unique_and_tell_their_unit() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert re.fullmatch(r"mica_[a-z0-9_]+", metric.name)
        plain = metric.name.removesuffix("_total")
        assert (plain != metric.name) == (metric.kind is Kind.COUNTER)
        if metric.unit in SUFFIX:
            assert plain.endswith(SUFFIX[metric.unit])


def test_every_line_names_its_resource_first() -> None:
    assert all(measurement.tags[0] == measurement.resource for measurement in MEASUREMENTS)


def test_old_names_lead_to_one_series() -> None:
    assert sum(len(metric.aliases) for metric in METRICS) == len(BY_ALIAS)
    assert resolve("ZStack/Host", "CPUAverageUsedUtilization").expression == "mica_host_cpu_used_percent"
    assert resolve("ZStack/VM", "NetworkAllInBytes").expression == "rate(mica_instance_network_all_in_bytes_total[1m])"
    with pytest.raises(KeyError):
        resolve("ZStack/VM", "Nothing")


def test_needs_no_django() -> None:
    script = "import monitoring.catalogue, sys; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
