"""Random lives of a cloud: people act, messages go astray, processes and machines die, time goes on, in any order."""

from typing import Any, ClassVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloud.common.errors import Problem
from cloud.infra.models import Host
from cloud.jobs import services as jobs
from cloud.jobs.models import Job, JobState
from compute.models import Instance
from compute.services import instances
from storage.models import Image
from storage.services import images
from tests.chaos import truth
from tests.chaos.cases import Stage
from tests.chaos.cloud import Letter
from tests.compute.scenarios import IMAGE_URL
from tests.compute.world import IMAGE_DATA

VERBS = {
    "start": instances.start,
    "stop": instances.stop,
    "reboot": instances.reboot,
    "destroy": instances.destroy,
    "recover": instances.recover,
    "expunge": instances.expunge,
}
MOST_INSTANCES = 4
some = st.integers(0, 7)


class Life(RuleBasedStateMachine):
    """`stage` is the cloud of two hosts in which every life begins anew."""

    stage: ClassVar[Stage]

    @initialize()
    def begin(self) -> None:
        self.stage.begin_anew()
        self.cloud, self.world = self.stage.cloud, self.stage.world
        self.world.machines.web[IMAGE_URL] = IMAGE_DATA
        self.doing: str | None = None
        self.cloud.post = self._post
        self.made, self.looked_at = 0, -1

    def _post(self, letter: Letter) -> bool:
        """Each message as it is taken: let through, lost, or delivered twice, as the last rule wanted."""
        doing, self.doing = self.doing, None
        if doing == "twice":
            self.cloud.deliver(letter)
        if doing == "late":
            self.cloud.redis.letters.append(letter)
        return doing not in ("lose", "late")

    # people

    @rule(is_started=st.booleans(), count=st.integers(1, 2))
    def create(self, is_started: bool, count: int) -> None:
        if Instance.objects.count() + count > MOST_INSTANCES:
            return
        self.made += 1
        self._ask(lambda: self.world.begin(f"vm-{self.made}", is_started=is_started, count=count))

    @rule(which=some, verb=st.sampled_from(sorted(VERBS)))
    def act(self, which: int, verb: str) -> None:
        found = list(Instance.objects.order_by("name"))
        if found:
            self._ask(lambda: VERBS[verb](found[which % len(found)], actor=self.world.admin))

    @rule()
    def add_image(self) -> None:
        if Image.objects.count() < 3:
            self._ask(lambda: images.add(actor=self.world.admin, name="another", url=IMAGE_URL))

    @rule(which=some)
    def cancel(self, which: int) -> None:
        live = list(Job.objects.live().order_by("sequence"))
        if live:
            self._ask(lambda: jobs.cancel(live[which % len(live)], actor=self.world.admin))

    def _ask(self, act: Any) -> None:
        try:
            act()
        except Problem as refused:
            note(f"refused: {refused.code}")

    # what happens

    @rule(count=st.integers(1, 30))
    def go_on(self, count: int) -> None:
        for _ in range(count):
            if not self.cloud.step():
                break

    @rule(seconds=st.sampled_from([1, 3, 10, 20, 61]))
    def wait(self, seconds: int) -> None:
        self.cloud.hop(seconds)

    @rule()
    def all_rushes(self) -> None:
        self.cloud.rush()

    @rule(how=st.sampled_from(["lose", "twice", "late"]))
    def next_message(self, how: str) -> None:
        self.doing = how
        self.cloud.step()
        self.doing = None

    @rule(nth=st.integers(0, 40), how=st.sampled_from(["killed", "broken"]), steps=st.integers(1, 12))
    def control_is_struck(self, nth: int, how: str, steps: int) -> None:
        """A worker dies, or the database goes away, at some statement from now."""
        self.cloud.vault.at_statement = (nth, how)
        for _ in range(steps):
            self.cloud.step()
        self.cloud.vault.at_statement = None

    @rule(how=st.sampled_from(["emptied", "restarted"]))
    def redis_forgets(self, how: str) -> None:
        self.cloud.empty_redis() if how == "emptied" else self.cloud.restart_redis()

    @rule(which=some)
    def agent_dies(self, which: int) -> None:
        self._node(which).kill()

    @rule(which=some)
    def machine_dies(self, which: int) -> None:
        self._node(which).lose_power()

    @rule(which=some)
    def machine_is_cut_off(self, which: int) -> None:
        self._node(which).is_away = True

    @precondition(lambda self: any(node.is_away or not node.is_up for node in self.cloud.machines.nodes.values()))
    @rule()
    def machines_come_back(self) -> None:
        self.cloud.come_back()

    @rule(which=some)
    def guest_crashes(self, which: int) -> None:
        hypervisor = self.world.machines.hypervisor(self._host(which).agent)
        running = sorted(uuid for uuid, domain in hypervisor._domains.items() if domain.state == "running")
        if running:
            hypervisor.crash(running[which % len(running)])

    def _host(self, which: int) -> Host:
        return self.world.hosts[which % len(self.world.hosts)]

    def _node(self, which: int) -> Any:
        """Mostly a host, sometimes the image server."""
        agent = self.world.server.agent if which == 7 else self._host(which).agent
        return self.world.machines.node(agent)

    # what holds

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        if hasattr(self, "cloud") and self.cloud.vault.statements != self.looked_at:
            self.looked_at = self.cloud.vault.statements
            truth.always(self.world)
            assert not self.cloud.crashes, self.cloud.crashes

    def teardown(self) -> None:
        if not hasattr(self, "cloud"):
            return
        self.cloud.heal()
        stuck = Job.objects.filter(state=JobState.STUCK)
        assert not stuck.exists(), [(job.workflow, job.error) for job in stuck]
        truth.settled(self.world)
