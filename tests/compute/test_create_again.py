"""Several instances made at once: what fails is made again by the wish that was kept."""

from typing import Any

import pytest

from cloud.common.wire import Failure
from cloud.jobs.models import Job, JobItem
from compute.models import Instance
from tests.base.clients import admin_client
from tests.compute.world import GIB, World


@pytest.mark.django_db(transaction=True)
def test_the_failed_ones_are_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = admin_client()
    body = {
        "name": "web-{n}",
        "count": 3,
        "image": str(world.image.pk),
        "cpu": 1,
        "memory_bytes": GIB,
        "nics": [{"l3_network": str(world.l3.pk)}],
        "user_data": "#cloud-config secret",
    }
    response = admin.post("/api/v1/instances/", body)
    assert response.status_code == 202, response.content
    parent = Job.objects.get(workflow="batch")
    assert "cloud-config" not in str(parent.context)
    assert JobItem.objects.filter(parent=parent).count() == 3
    doomed = Instance.objects.get(name="web-2")
    obey = world.machines.obey

    def fails(command: Any, agent: str) -> Any:
        if command.task == "compute.start_domain" and command.resource == str(doomed.pk):
            return Failure("rejected", "no_luck", "It does not start.")
        return obey(command, agent)

    monkeypatch.setattr(world.machines, "obey", fails)
    world.settle()
    told = admin.get(response.json()["job"]).json()
    assert (told["state"], told["counts"]["succeeded"], told["counts"]["failed"]) == ("failed", 2, 1)
    assert [row["name"] for row in told["results"] if row["state"] == "failed"] == ["web-2"]
    assert not Instance.objects.filter(name="web-2").exists()
    again = admin.post(f"{response.json()['job']}retry/", {})
    assert again.status_code == 202, again.content
    world.settle()
    (row,) = admin.get(again.json()["job"]).json()["results"]
    assert (row["name"], row["state"]) == ("web-2", "succeeded")
    made = Instance.objects.get(name="web-2")
    assert (made.state, str(made.pk)) == ("running", row["uuid"])
