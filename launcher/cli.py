"""The commands of `./mica`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from launcher import access, checks, preflight, setup, testing
from launcher.bench import frame
from launcher.bench.run import Run
from launcher.cloud import CHECKOUT, Cloud
from launcher.control import environment
from launcher.errors import Refusal
from launcher.instance import Instance
from launcher.steps import Steps

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what a person can mend is told without a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    options, rest = parse(words)
    options.rest = rest
    command: Command = options.command
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)  # end as with Ctrl-C, so that what was changed for a while is put back
    try:
        return command(options)
    except Refusal as refusal:
        print(f"\nmica: {refusal.what}", file=sys.stderr)
        if refusal.advice:
            print(f"      {refusal.advice}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmica: interrupted; the same command goes on from here, ./mica down clears up", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of the launcher, and the words meant for the tool behind it (manage.py, pytest, ssh)."""
    parser = argparse.ArgumentParser(prog="./mica", description="Mica: a cloud on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    add("up", up, "Set up what is missing and start the cloud with its lab.").add_argument(
        "--simulate", metavar="N", type=_count, help="have N simulated hosts besides (0: none); they stay until told"
    )
    add("down", down, "Stop the cloud; data stay.").add_argument(
        "--purge", action="store_true", help="remove data and logs too"
    )
    add("status", status, "Show every process and machine; exit code 1 unless all run.")
    examined = add("doctor", doctor, "Compare records and reality; exit code 1 unless all is well.")
    examined.add_argument("--fix", action="store_true", help="mend what can be mended, by way of quarantine")
    examined.add_argument("--json", action="store_true", help="print the outcome as one JSON document")
    add("check", check, "Lint, types, contracts, migrations, API schema, translations.")
    tested = add("test", test, "Check, then run the tests.")
    tested.usage = "./mica test [--full] [pytest arguments]"
    tested.add_argument("--full", action="store_true", help="all tests, the long ones too")
    measured = add("bench", bench, "Measure the cloud against its bars; exit code 1 if a figure is short.")
    measured.add_argument("names", metavar="NAME", nargs="*", help=f"one of {', '.join(b.name for b in frame.BENCHES)}")
    measured.add_argument("--quick", action="store_true", dest="is_quick", help="smaller sizes, minutes in all")
    measured.add_argument("--json", action="store_true", dest="is_json", help="one JSON document instead of a table")
    add("manage", manage, "Run manage.py with the instance's settings.").usage = "./mica manage COMMAND …"
    add("token", token, "Print a new API token of a user.").add_argument("user", metavar="USER")
    signed_in = add("ssh", ssh, "Sign in to a guest as root, or run a command there.")
    signed_in.usage = "./mica ssh INSTANCE [command]"
    signed_in.add_argument("instance", metavar="INSTANCE")
    forwarded = add("forward", forward, "Listen on loopback and carry connections to a guest's port.")
    forwarded.add_argument("instance", metavar="INSTANCE")
    forwarded.add_argument("port", metavar="PORT", type=int)

    ours, theirs = split(words)
    return parser.parse_args(ours), theirs


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own words, and those passed on untouched: argparse would reorder them and take their options for ours."""
    words = list(words)
    if words[:1] == ["manage"]:
        return words[:1], words[1:]
    if words[:1] == ["ssh"]:
        return words[:2], words[2:]
    if words[:1] == ["test"] and words[1:2] not in (["-h"], ["--help"]):
        full = [word for word in words if word == "--full"]
        return ["test", *full], [word for word in words[1:] if word != "--full"]
    return words, []


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hosts")
    return int(text)


def up(options: argparse.Namespace) -> int:
    cloud = _cloud()
    cloud.check_room()
    setup.tools(cloud.instance, cloud.steps)
    cloud.up()
    if options.simulate is not None:
        cloud.simulate(options.simulate)
    link = cloud.run_manage("signin_link", "admin").strip()
    cloud.steps.say(f"\nMica runs. Sign in as admin, this link is good for one time:\n\n  {link}\n")
    return 0


def down(options: argparse.Namespace) -> int:
    _cloud().down(purge=options.purge)
    return 0


def status(_: argparse.Namespace) -> int:
    cloud = _cloud()
    for name, state, pid in cloud.status():
        print(f"  {name:<24} {state:<10} {pid or ''}".rstrip())
    if words := cloud.draining():
        print(words)
    return 0 if cloud.is_up() else 1


def doctor(options: argparse.Namespace) -> int:
    cloud = _running_cloud()
    words = [f"--{name}" for name in ("fix", "json") if getattr(options, name)]
    return subprocess.run(
        cloud.manage_command("doctor", *words),
        cwd=cloud.instance.checkout,
        env={**os.environ, **cloud.env()},
        check=False,
    ).returncode


def check(_: argparse.Namespace) -> int:
    cloud = _cloud()
    setup.tools(cloud.instance, cloud.steps)
    return 0 if checks.run_all(cloud.instance, cloud.steps) else 1


def test(options: argparse.Namespace) -> int:
    cloud = _cloud()
    return testing.run(cloud.instance, is_full=options.full, arguments=options.rest, steps=cloud.steps)


def bench(options: argparse.Namespace) -> int:
    benches = frame.chosen(options.names)
    preflight.become_root()
    cloud = Cloud(Instance.of_checkout(CHECKOUT), Steps(sys.stderr))
    was_up = cloud.is_up()
    if not was_up:
        cloud.steps.say("The cloud is not up: it is brought up for this, and down again afterwards")
        cloud.check_room()
        setup.tools(cloud.instance, cloud.steps)
        cloud.up()
    try:
        is_good = frame.measure(benches, Run(cloud, options.is_quick, cloud.steps.say), is_json=options.is_json)
    finally:
        if not was_up:
            cloud.down()
    return 0 if is_good else 1


def manage(options: argparse.Namespace) -> int:
    cloud = _set_up_cloud()
    if options.rest[:1] == ["simulate"] and cloud.supervisor.is_alive():
        cloud.start_simulator()
    command = cloud.manage_command(*options.rest)
    os.chdir(cloud.instance.checkout)
    sys.stdout.flush()
    os.execvpe(command[0], command, {**os.environ, **cloud.env()})  # noqa: S606 - a list of words, no shell wanted


def token(options: argparse.Namespace) -> int:
    print(_running_cloud().run_manage("token", options.user).strip())
    return 0


def ssh(options: argparse.Namespace) -> int:
    return access.ssh(_running_cloud(), options.instance, options.rest)


def forward(options: argparse.Namespace) -> int:
    access.forward(_running_cloud(), options.instance, options.port)
    return 0


def _running_cloud() -> Cloud:
    cloud = _set_up_cloud()
    if cloud.supervisor.missing(["postgres", "redis"]):
        raise Refusal("Mica is not running", "Run ./mica up first.")
    return cloud


def _cloud() -> Cloud:
    preflight.become_root()
    return Cloud(Instance.of_checkout(CHECKOUT), Steps())


def _set_up_cloud() -> Cloud:
    cloud = _cloud()
    if not cloud.instance.python.exists():
        raise Refusal("Mica is not set up yet", "Run ./mica up first.")
    environment.prepare(cloud.instance)
    return cloud
