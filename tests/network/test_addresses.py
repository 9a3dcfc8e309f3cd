"""Addresses are given out once, lowest first, whoever asks and in whatever order."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase

from cloud.common.errors import Conflict, Exhausted, Invalid, Missing
from network.models import AddressPurpose, IpAddress, IpRange, L3Network, Nic
from network.services import addresses, ipv4, nics, ranges
from tests.network.factories import ACTOR, l3, nic, no_vlan


@pytest.mark.django_db
def test_first_free_after_gateway_and_dhcp() -> None:
    made = l3(cidr="10.0.0.0/29")
    held = dict(made.addresses.values_list("purpose", "address"))
    assert held == {"gateway": "10.0.0.1", "dhcp": "10.0.0.2"}
    assert [nic(made).address for _ in range(4)] == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    with pytest.raises(Exhausted) as caught:
        nic(made)
    assert caught.value.code == "addresses_exhausted"


@pytest.mark.django_db
def test_freed_address_is_the_next_one() -> None:
    made = l3()
    first, second, _third = nic(made), nic(made), nic(made)
    nics.delete([first, second])
    assert nic(made).address == first.address
    assert nic(made).address == second.address


@pytest.mark.django_db
def test_nics_are_deleted_once() -> None:
    made = l3()
    old = nic(made)
    nics.delete([old])
    new = nic(made, ip=old.address)
    nics.delete([old])
    assert IpAddress.objects.get(l3=made, address=old.address).holder == new.pk


@pytest.mark.django_db
def test_second_range_is_used_when_the_first_is_full() -> None:
    made = l3(start="192.168.50.10", end="192.168.50.11")
    ranges.add(actor=ACTOR, l3=made, start="192.168.50.20", end="192.168.50.21", prefix=24)
    assert [nic(made).address for _ in range(3)] == ["192.168.50.11", "192.168.50.20", "192.168.50.21"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("ip", "problem", "code"),
    [
        ("192.168.50.1", Conflict, "address_taken"),
        ("192.168.50.2", Conflict, "address_taken"),
        ("192.168.51.7", Invalid, "address_out_of_range"),
        ("192.168.50.255", Invalid, "address_out_of_range"),
        ("nonsense", Invalid, "not_an_address"),
        ("192.168.50.07", Invalid, "not_an_address"),
        ("::1", Invalid, "not_an_address"),
    ],
)
def test_choosing_what_cannot_be_had(ip: str, problem: type[Exception], code: str) -> None:
    made = l3()
    with pytest.raises(problem) as caught:
        nic(made, ip=ip)
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert "ip" in caught.value.errors  # type: ignore[attr-defined]
    assert not Nic.objects.exists()


@pytest.mark.django_db
def test_network_without_range_has_nothing_to_give() -> None:
    with pytest.raises(Exhausted) as caught:
        nic(l3(cidr=""))
    assert caught.value.code == "no_ip_range"


@pytest.mark.django_db
def test_reserved_addresses_are_passed_over_and_can_be_released() -> None:
    made = l3()
    addresses.reserve(made, start="192.168.50.3", end="192.168.50.5", note="printer", actor=ACTOR)
    assert nic(made).address == "192.168.50.6"
    with pytest.raises(Conflict):
        addresses.reserve(made, start="192.168.50.4", end="192.168.50.8", actor=ACTOR)
    addresses.release(made, start="192.168.50.3", end="192.168.50.4", actor=ACTOR)
    assert nic(made).address == "192.168.50.3"
    with pytest.raises(Missing):
        addresses.release(made, start="192.168.50.3", actor=ACTOR)


@pytest.mark.django_db
def test_refused_reservation_keeps_nothing() -> None:
    made = l3()
    nic(made, ip="192.168.50.12")
    with pytest.raises(Conflict):
        addresses.reserve(made, start="192.168.50.10", end="192.168.50.15", actor=ACTOR)
    assert not IpAddress.objects.filter(purpose=AddressPurpose.RESERVED).exists()


@pytest.mark.django_db(transaction=True)
def test_hints_move_and_decide_nothing() -> None:
    made = l3()
    row = IpRange.objects.get()
    first, second = nic(made), nic(made)
    row.refresh_from_db()
    assert row.first_free == "192.168.50.5"
    nics.delete([first])
    row.refresh_from_db()
    assert row.first_free == first.address
    # Wrong by as much as can be, either way: nothing but the order suffers.
    IpRange.objects.update(first_free=row.end)
    assert nic(made).address == row.end
    assert nic(made).address == first.address
    IpRange.objects.update(first_free=row.start)
    assert nic(made).address == "192.168.50.5"
    assert second.address == "192.168.50.4"


@pytest.mark.django_db(transaction=True)
def test_a_full_half_of_a_large_range_is_no_hindrance() -> None:
    made = l3(cidr="10.0.0.0/16")
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO network_ipaddress
               (uuid, name, description, project_id, created_at, updated_at, l3_id, address, purpose, holder)
               SELECT gen_random_uuid(), '', '', %s, now(), now(), %s, '10.0.0.3'::inet + n, 'nic', gen_random_uuid()
               FROM generate_series(0, 32000) n""",
            [made.project_id, made.pk],
        )
        cursor.execute("ANALYZE network_ipaddress")
    assert nic(made).address == "10.0.125.4"
    holders = [addresses.Holder(uuid.uuid4(), "explained", made.project)]
    with transaction.atomic(), connection.cursor() as cursor:
        arguments = addresses.arguments(made, holders, AddressPurpose.NIC)
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + addresses.TAKE["first_free"], arguments)
        plan = cursor.fetchone()[0][0]["Plan"]
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        assert cursor.fetchone() == (1,)  # no more is locked than is taken
    # From the hint on, it is one probe of the index, however much lies before and behind.
    assert _nodes(plan, "Index") or _nodes(plan, "Bitmap")
    assert not _nodes(plan, "Seq Scan")
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in _walk(plan)) <= 10


def _walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(deeper for each in node.get("Plans", []) for deeper in _walk(each))]


def _nodes(plan: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [node for node in _walk(plan) if kind in node["Node Type"]]


def _in_threads(acts: list[Callable[[], Any]]) -> list[Any]:
    """Run all at once, each on its own connection; what each returned or raised, in order."""
    start = threading.Barrier(len(acts))
    results: list[Any] = [None] * len(acts)

    def run(number: int) -> None:
        try:
            start.wait()
            results[number] = acts[number]()
        except Exception as error:
            results[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_two_callers_at_the_last_address() -> None:
    made = l3(start="192.168.50.10", end="192.168.50.11")  # the first one is the DHCP server's
    results = _in_threads([lambda: nic(made)] * 2)
    assert sorted(type(result).__name__ for result in results) == ["Exhausted", "Nic"]
    assert IpAddress.objects.filter(l3=made, purpose=AddressPurpose.NIC).count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_callers_choose_the_same_address() -> None:
    made = l3()
    results = _in_threads([lambda: nic(made, ip="192.168.50.77")] * 4)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Conflict", "Conflict", "Nic"]


@pytest.mark.django_db(transaction=True)
def test_many_callers_get_addresses_of_their_own() -> None:
    made = l3(start="192.168.50.10", end="192.168.50.50")
    results = _in_threads([lambda: [nic(made).address for _ in range(5)]] * 6)
    given = [address for result in results for address in result]
    assert len(given) == len(set(given)) == 30
    assert sorted(given, key=ipv4.IPv4Address)[0] == "192.168.50.11"


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_another_caller() -> None:
    """Two transactions take of two networks in opposite order, both before either commits: no wait, no deadlock."""
    one, two = l3(), l3()
    meet = threading.Barrier(2)

    def take(first: L3Network, second: L3Network) -> list[str]:
        with transaction.atomic():
            found = [nic(first).address]
            meet.wait(timeout=10)
            found.append(nic(second).address)
            meet.wait(timeout=10)
        return found

    results = _in_threads([lambda: take(one, two), lambda: take(two, one)])
    assert sorted(results) == [["192.168.50.3", "192.168.50.4"]] * 2


@pytest.mark.django_db(transaction=True)
def test_rolled_back_address_is_free_again() -> None:
    made = l3()

    class Undone(Exception):
        pass

    def take_and_fail() -> None:
        with transaction.atomic():
            nic(made)
            raise Undone

    with pytest.raises(Undone):
        take_and_fail()
    assert nic(made).address == "192.168.50.3"


@pytest.mark.django_db(transaction=True)
def test_range_is_not_deleted_from_under_a_caller() -> None:
    made = l3()
    row = made.ranges.get()

    def delete() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
        ranges.delete(row, actor=ACTOR)

    with transaction.atomic():
        nic(made)
        waited = _in_threads([delete])[0]
    assert isinstance(waited, OperationalError)  # it would have waited for this transaction
    with pytest.raises(Conflict) as caught:
        ranges.delete(row, actor=ACTOR)
    assert caught.value.code == "in_use"


class AllocationProperties(HypothesisTestCase):
    """Whatever is taken, chosen and freed: never twice, never outside, always the lowest, Exhausted only when full."""

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(acts=st.lists(st.tuples(st.sampled_from(["free", "choose", "delete"]), st.integers(0, 13)), max_size=30))
    def test_model(self, acts: list[tuple[str, int]]) -> None:
        made = l3(no_vlan(), cidr="10.9.0.0/28")
        pool = {f"10.9.0.{last}" for last in range(1, 15)}
        held: dict[str, Nic | None] = {"10.9.0.1": None, "10.9.0.2": None}
        for act, number in acts:
            ours = sorted((ip for ip, owner in held.items() if owner), key=ipv4.IPv4Address)
            if act == "delete":
                if ours:
                    ip = ours[number % len(ours)]
                    owner = held.pop(ip)
                    assert owner is not None
                    nics.delete([owner])
                continue
            wanted = f"10.9.0.{number + 1}" if act == "choose" else None
            lowest = min(pool - held.keys(), key=ipv4.IPv4Address, default=None)
            try:
                new = nic(made, ip=wanted)
            except Exhausted:
                assert wanted is None
                assert lowest is None
            except Conflict:
                assert wanted in held
            else:
                assert new.address not in held
                assert new.address == (wanted or lowest)
                held[new.address] = new
        assert set(made.addresses.values_list("address", flat=True)) == set(held)
        assert addresses.next_free(made) == min(pool - held.keys(), key=ipv4.IPv4Address, default=None)


@pytest.mark.django_db
def test_macs_are_ours_and_unique() -> None:
    made = l3()
    found = {nic(made).mac for _ in range(20)}
    assert len(found) == 20
    assert all(mac.startswith("fa:") for mac in found)
