"""What is told to control can be kept by control, whatever the machine said."""

import json
import threading

from cloud.agent.outbox import Outbox
from cloud.agent.wording import fit

NASTY = "disk \0 \ud800\udfff \x1b[2J é 😀\n"
KEPT = "disk \ufffd \ufffd\ufffd \x1b[2J é 😀\n"


def test_strings_are_fit_wherever_they_are():
    document = {"failure": {"detail": NASTY}, NASTY: [NASTY, (1, None, True, 1.5)], "n": {"a": [{"b": NASTY}]}}
    assert fit(document) == {
        "failure": {"detail": KEPT},
        KEPT: [KEPT, [1, None, True, 1.5]],
        "n": {"a": [{"b": KEPT}]},
    }


def test_what_control_reads_can_be_written_down():
    text = json.loads(json.dumps(fit({"detail": NASTY})))["detail"]
    assert "\0" not in text
    text.encode()


def test_the_outbox_lets_nothing_else_out():
    sent, is_sent = [], threading.Event()

    def send(task, document):
        sent.append((task, document))
        is_sent.set()

    outbox = Outbox(send)
    outbox.start()
    outbox.put("jobs.answer", {"failure": {"detail": NASTY}})
    assert is_sent.wait(5)
    assert sent == [("jobs.answer", {"failure": {"detail": KEPT}})]
