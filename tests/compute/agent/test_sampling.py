"""Samples: percentages of the time between two readings, and nothing that is not known."""

from compute.agent.sampling import Sampler
from compute.drivers.base import DiskStats, DomainStats, NicStats
from monitoring.catalogue import MEASUREMENTS

GIB = 1 << 30


def reading(cpu_seconds: float | None, **changes: object) -> DomainStats:
    values: dict[str, object] = {
        "uuid": "u",
        "project": "p",
        "cpu_count": 2,
        "cpu_seconds": cpu_seconds,
        "vcpu_seconds": {} if cpu_seconds is None else {0: cpu_seconds, 1: 0.0},
        "memory_total_bytes": 4 * GIB,
        "memory_free_bytes": GIB,
        "memory_resident_bytes": 5 * GIB,
        "disks": (DiskStats("vda", 1, 2, 3, 4), DiskStats("vdb", 10, 20, 30, 40)),
        "nics": (NicStats("nic-1", 1, 2, 3, 4, 5, 6), NicStats("nic-2", 10, 20, 30, 40, 50, 60)),
    }
    return DomainStats(**values | changes)  # type: ignore[arg-type]


def test_percent_of_all_its_processors() -> None:
    sampler = Sampler("h")
    sampler.samples([reading(100.0)], now=0.0)
    samples = sampler.samples([reading(105.0)], now=10.0)
    assert samples[0].fields["cpu_used_percent"] == 25.0
    cores = {s.tags["core"]: s.fields["used_percent"] for s in samples if s.measurement == "mica_instance_core"}
    assert cores == {"0": 50.0, "1": 0.0}


def test_no_percent_across_a_restart_or_a_pause_of_the_agent() -> None:
    sampler = Sampler("h")
    assert "cpu_used_percent" not in sampler.samples([reading(100.0)], now=0.0)[0].fields
    assert "cpu_used_percent" not in sampler.samples([reading(1.0)], now=10.0)[0].fields
    sampler.samples([], now=20.0)
    assert "cpu_used_percent" not in sampler.samples([reading(9.0)], now=30.0)[0].fields


def test_never_above_a_hundred() -> None:
    sampler = Sampler("h")
    sampler.samples([reading(0.0)], now=0.0)
    assert sampler.samples([reading(50.0)], now=10.0)[0].fields["cpu_used_percent"] == 100.0


def test_memory_and_sums() -> None:
    fields = Sampler("h").samples([reading(1.0)])[0].fields
    assert fields["memory_used_bytes"] == 3 * GIB
    assert fields["memory_used_percent"] == 75.0
    assert fields["memory_free_percent"] == 25.0
    assert fields["disk_all_read_bytes_total"] == 11
    assert fields["disk_all_write_ops_total"] == 44
    assert fields["network_all_in_packets_total"] == 22
    assert fields["network_all_out_errors_total"] == 66


def test_the_unknown_is_left_out() -> None:
    bare = reading(None, memory_free_bytes=None, disks=(), nics=())
    fields = Sampler("h").samples([bare])[0].fields
    assert set(fields) == {"cpu_count", "memory_total_bytes", "memory_resident_bytes"}
    emptier = reading(None, cpu_count=None, memory_total_bytes=None, memory_resident_bytes=None, disks=(), nics=())
    assert Sampler("h").samples([emptier])[0].fields == {}


def test_all_names_are_in_the_catalogue() -> None:
    known = {measurement.name: measurement for measurement in MEASUREMENTS}
    sampler = Sampler("h")
    sampler.samples([reading(1.0)], now=0.0)
    samples = sampler.samples([reading(2.0)], now=10.0)
    assert {sample.measurement for sample in samples} == {name for name in known if name.startswith("mica_instance")}
    for sample in samples:
        measurement = known[sample.measurement]
        assert set(sample.tags) == set(measurement.tags)
        assert set(sample.fields) == {field.name for field in measurement.fields}
