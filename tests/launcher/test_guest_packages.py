"""Which packages make the guest, on the distributions we know, and what is said when one is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.guest import build, commands, packages

DEBIAN = {
    "linux-image-cloud-amd64": ["linux-image-6.1.0-56-cloud-amd64"],
    "linux-image-6.1.0-56-cloud-amd64": ["kmod", "linux-base"],
    "qemu-guest-agent": ["libc6", "<virtual>", "init-system-helpers", "libglib2.0-0"],
    "libglib2.0-0": ["libc6", "zlib1g", "libglib2.0-0"],
    "libc6": ["libgcc-s1"],
}
UBUNTU = {
    "linux-image-virtual": ["linux-image-6.8.0-50-generic", "linux-firmware"],
    "linux-image-6.8.0-50-generic": ["kmod", "linux-modules-6.8.0-50-generic"],
}


def fake_apt(monkeypatch: pytest.MonkeyPatch, known: dict[str, list[str]]) -> None:
    def run(*command: str, **_: object) -> str:
        if command[1] == "policy":
            return f"{command[2]}:\n  Candidate: 1\n" if command[2] in known else ""
        names = [name for name in command if name in known]
        return "".join(f"{name}\n" + "".join(f"  Depends: {needed}\n" for needed in known[name]) for name in names)

    monkeypatch.setattr(packages, "run", run)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (DEBIAN, ["linux-image-6.1.0-56-cloud-amd64"]),
        (UBUNTU, ["linux-image-6.8.0-50-generic", "linux-modules-6.8.0-50-generic"]),
    ],
)
def test_kernel_of_the_distribution(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, list[str]], expected: list[str]
) -> None:
    fake_apt(monkeypatch, known)
    assert packages.kernel_packages() == expected


def test_no_kernel_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(monkeypatch, {})
    with pytest.raises(commands.BuildError, match="apt-get update"):
        packages.kernel_packages()


def test_libraries_are_followed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(monkeypatch, DEBIAN)
    assert set(packages.with_libraries(("qemu-guest-agent",))) == {
        "qemu-guest-agent", "libc6", "libglib2.0-0", "zlib1g", "libgcc-s1",
    }  # fmt: skip


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_PATH", "/nowhere")
    with pytest.raises(commands.BuildError, match=r"dosfstools .* mtools"):
        commands.check_tools()


def test_failed_program_is_quoted() -> None:
    with pytest.raises(commands.BuildError, match=r"status 1.*cannot access"):
        commands.run("sh", "-c", "echo cannot access >&2; exit 1")


def test_failed_build_leaves_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(monkeypatch, {})
    monkeypatch.setattr(build, "check_tools", lambda: None)
    (image := tmp_path / "guest.qcow2").write_text("old")
    assert build.main([str(image)]) == 1
    assert image.read_text() == "old"
    assert list(tmp_path.iterdir()) == [image]
