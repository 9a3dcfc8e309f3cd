"""What people read is there in both languages, in the words of the glossary, chosen when it is read."""

import ast
import gettext
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from cloud.accounts.models import Project
from cloud.common import permissions
from cloud.common.actor import Actor
from cloud.common.driver import DriverError
from cloud.common.errors import Conflict
from cloud.config import registry
from cloud.infra.models import Zone
from cloud.infra.workflows import problems
from cloud.jobs import engine, failures, services
from cloud.jobs.workflow import WORKFLOWS, Context, Step, Workflow
from tests.base.clients import Client

CHECKOUT = Path(__file__).resolve().parents[2]
CATALOGUE = CHECKOUT / "cloud/locale/zh_Hans/LC_MESSAGES/django.po"
CHINESE = {"HTTP_ACCEPT_LANGUAGE": "zh-CN,zh;q=0.9,en;q=0.5"}
NOBODYS = "00000000-0000-4000-8000-000000000000"
PLACEHOLDER = re.compile(r"%(?:\([a-z_]+\))?[a-z]")
HEADER = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'
HAN = re.compile(r"[\u4e00-\u9fff]")

# The glossary: an English text that has the word has the Chinese one in its translation. Compounds come first.
GLOSSARY = {
    r"primary storages?": "主存储",
    r"image servers?": "镜像服务器",
    r"disk offerings?": "云盘规格",
    r"instance offerings?": "计算规格",
    r"root volume templates?": "系统云盘镜像",
    r"data volume templates?": "数据云盘镜像",
    r"VXLAN pools?": "VXLAN网络池",
    r"L2 networks?": "二层网络",
    r"L3 networks?": "三层网络",
    r"IP ranges?": "网络段",
    r"network cards?": "网卡",
    r"recycle bin": "回收站",
    r"over-provisioning": "超分率",
    r"operation log": "操作日志",
    r"instances?": "云主机",
    r"hosts?(?! key)": "物理机",
    r"images?": "镜像",
    r"volumes?": "云盘",
    r"zones?": "区域",
    r"clusters?": "集群",
    r"expunged?": "彻底删除",
    r"accounts?": "账户",
    r"projects?": "项目",
    r"users?": "用户",
    r"roles?": "角色",
    r"jobs?": "任务",
    r"quota": "配额",
}
# The English word means something else there, or the Chinese sentence does without it.
OTHER_SENSE = {
    "Give a URL with a host, other characters percent-encoded.",
    "A sign-in link works once and for 15 minutes. Make a new one with: ./mica manage signin_link USER",
    "This needs a signed-in user.",
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue as it stands in the checkout; its compiled copy there may be older, or absent."""
    file = tmp_path_factory.mktemp("locale") / "zh_Hans/LC_MESSAGES/django.mo"
    file.parent.mkdir(parents=True)
    subprocess.run(["msgfmt", "--check", "--output-file", file, CATALOGUE], check=True, capture_output=True)
    return file


@pytest.fixture(autouse=True)
def _spoken(compiled: Path, settings: Any) -> None:
    settings.LOCALE_PATHS = [compiled.parents[2]]


@pytest.fixture
def texts(compiled: Path) -> dict[str, str]:
    """The catalogue: English → Chinese; of a text with a plural, the singular."""
    with compiled.open("rb") as file:
        catalogue: dict[Any, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    return {
        english[0] if isinstance(english, tuple) else english: chinese
        for english, chinese in catalogue.items()
        if english
    }


def chinese_of(text: Any) -> str:
    with translation.override("zh-hans"):
        return str(text)


# The catalogue


def test_nothing_is_left_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher.messages"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_left_out_is_found(tmp_path: Path) -> None:
    """In code and in an app's templates alike."""
    marked = 'from django.utils.translation import gettext as _\nTEXT = _("A text of code")\n'
    (tmp_path / "cloud/portal/templates").mkdir(parents=True)
    (tmp_path / "cloud/some.py").write_text(marked)
    (tmp_path / "cloud/portal/templates/page.html").write_text('{% load i18n %}{% translate "A text of a page" %}')
    shutil.copytree(CHECKOUT / "launcher", tmp_path / "launcher", symlinks=True)
    catalogue = tmp_path / "cloud/locale/zh_Hans/LC_MESSAGES/django.po"
    catalogue.parent.mkdir(parents=True)
    texts = {"A text of code", "A text of a page"}
    for missing in (*texts, None):
        entries = [f'msgid "{english}"\nmsgstr "文本"\n' for english in texts - {missing}]
        catalogue.write_text("\n".join([HEADER, *entries]))
        done = subprocess.run(
            [sys.executable, "-m", "launcher.messages"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == (1 if missing else 0), done.stdout + done.stderr
        assert re.findall(r'msgid "(.+)"', done.stdout) == ([missing] if missing else [])


def test_no_entry_is_in_doubt_or_noise() -> None:
    catalogue = CATALOGUE.read_text()
    assert "fuzzy" not in catalogue
    assert "#~" not in catalogue
    assert not re.search(r"^#: \S+:\d+", catalogue, re.MULTILINE)
    assert not re.search(r'msgstr ""\n\n', catalogue)


def test_values_keep_their_places(texts: dict[str, str]) -> None:
    for english, chinese in texts.items():
        assert sorted(PLACEHOLDER.findall(english)) == sorted(PLACEHOLDER.findall(chinese)), english


def test_the_words_are_the_glossarys(texts: dict[str, str]) -> None:
    wrong = []
    for english, chinese in texts.items():
        left = "" if english in OTHER_SENSE else re.sub(rf"{PLACEHOLDER.pattern}|/\S+", "", english)
        for word, ours in GLOSSARY.items():
            left, count = re.subn(rf"\b{word}\b", "", left, flags=re.IGNORECASE)
            if count and ours not in chinese:
                wrong.append((english, chinese))
    assert wrong == []


def test_chinese_is_written_as_chinese(texts: dict[str, str]) -> None:
    """Full-width stops and commas after Chinese, and a sentence ends as its original does."""
    for english, chinese in texts.items():
        assert not re.search(r"[\u4e00-\u9fff][,;:?!]|[\u4e00-\u9fff]\.$", chinese), chinese
        if re.search(r"\w\.$", english) and HAN.search(chinese):
            assert chinese.endswith("。"), chinese


def test_registers_are_translated() -> None:
    labels = [*permissions.declared().values(), *(setting.label for setting in registry.declared().values())]
    labels += [text for setting in registry.declared().values() if (text := setting.help)]
    assert len(labels) > 100
    assert [str(label) for label in labels if not HAN.search(chinese_of(label))] == []
    named = [name for name in WORKFLOWS if not name.startswith("test.")]
    assert named
    verbs = [WORKFLOWS[name].verb for name in named]
    steps = [step.label for name in named for step in WORKFLOWS[name].steps]
    assert [str(said) for said in (*verbs, *steps) if not HAN.search(chinese_of(said))] == []


# What a caller reads


def test_a_problem_comes_in_the_readers_language(admin: Client) -> None:
    """One process, one text after the other in either language: nothing is settled when a module is imported."""
    for _again in range(2):
        there = admin.get(f"/api/v1/zones/{NOBODYS}/").json()
        assert (there["title"], there["detail"]) == ("Not found", "There is no such resource.")
        here = admin.get(f"/api/v1/zones/{NOBODYS}/", **CHINESE)
        assert (here.json()["title"], here.json()["detail"]) == ("未找到", "资源不存在。")
        assert here.headers["Content-Language"] == "zh-hans"


def test_a_refused_field_says_why_in_chinese(admin: Client) -> None:
    ours = admin.post("/api/v1/zones/", {"name": "a", "nonsense": 1}, **CHINESE).json()
    assert (ours["title"], ours["errors"]) == ("输入无效", {"nonsense": ["没有这个字段。"]})
    the_frameworks = admin.post("/api/v1/zones/", {"name": ""}, **CHINESE).json()
    assert HAN.search(the_frameworks["errors"]["name"][0])


def test_anonymous_are_told_in_chinese(anonymous: Client) -> None:
    body = anonymous.get("/api/v1/zones/", **CHINESE).json()
    assert body["title"] == "请先登录"
    assert "登录" in body["detail"]
    assert "登录" in body["advice"]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Workflow]]:
    """A workflow whose one step fails with `problem`."""

    class Fail(Step):
        label = _("Creating the volumes")
        problem: Exception

        def run(self, ctx: Context) -> None:
            raise self.problem

    class Failing(Workflow):
        name = "test.words"
        verb = _("Start instance")
        steps = [Fail]

    for module in (engine, services):
        monkeypatch.setattr(module, "kick", lambda *_words: None)
    yield Failing
    WORKFLOWS.pop("test.words")


def failed_job(workflow: type[Workflow], problem: Exception, project: Project, actor: Actor) -> str:
    """A job that failed with the problem, in a process that speaks English; its place in the API."""
    zone = Zone.objects.create(name=str(uuid.uuid4()), project=project)
    workflow.steps[0].problem = problem  # type: ignore[attr-defined]
    with transaction.atomic():
        job = services.open(workflow, resource=zone, actor=actor)
    with translation.override("en"):
        engine.advance(job.pk)
    return f"/api/v1/jobs/{job.pk}/"


@pytest.mark.django_db(transaction=True)
def test_a_jobs_failure_comes_in_the_readers_language(
    failing: type[Workflow], admin: Client, admin_project: Project, actor: Actor
) -> None:
    problem = Conflict(_("The image is gone."), advice=_("Try again in a moment."))
    place = failed_job(failing, problem, admin_project, actor)
    for _again in range(2):
        there, here = admin.get(place).json(), admin.get(place, **CHINESE).json()
        assert there["state"] == here["state"] == "failed"
        assert (there["verb"], here["verb"]) == ("Start instance", "启动云主机")
        assert (there["steps"][0]["label"], here["steps"][0]["label"]) == ("Creating the volumes", "创建云盘")
        assert there["error"]["detail"] == there["steps"][0]["error"]["detail"] == "The image is gone."
        assert here["error"]["detail"] == here["steps"][0]["error"]["detail"] == "镜像已不存在。"
        assert here["error"]["title"] == "当前无法执行此操作"
        assert here["error"]["advice"] == "请稍后重试。"
        assert here["error"]["code"] == there["error"]["code"] == "conflict"


class Slow(Step):
    label = _("Downloading the image")
    deadline = 7


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("problem", "english", "chinese"),
    [
        (
            failures.timed_out(Slow()),
            "“Downloading the image” took longer than 7 seconds.",
            "“下载镜像”超过 7 秒仍未完成。",
        ),
        (
            problems.of(DriverError("host_unreachable", "timed out")),
            "The machine does not answer. (timed out)",
            "机器没有响应。（timed out）",
        ),
        (
            RuntimeError("a defect"),
            "An error inside the platform: RuntimeError: a defect",
            "平台内部错误：RuntimeError: a defect",
        ),
    ],
    ids=["timed out", "of a machine", "a defect"],
)
def test_a_failure_with_values_does_too(
    failing: type[Workflow],
    admin: Client,
    admin_project: Project,
    actor: Actor,
    problem: Exception,
    english: str,
    chinese: str,
) -> None:
    """Whoever puts the values into the text does not settle its language."""
    place = failed_job(failing, problem, admin_project, actor)
    assert admin.get(place).json()["error"]["detail"] == english
    assert admin.get(place, **CHINESE).json()["error"]["detail"] == chinese


def test_what_jobs_say_is_filled_in_by_its_reader() -> None:
    """`_("…") % {…}` settles the language at once: in steps and failures it is `filled(_("…"), …)`."""
    files = [*CHECKOUT.glob("*/workflows/*.py"), *CHECKOUT.glob("cloud/*/workflows/*.py")]
    files += [CHECKOUT / "cloud/jobs" / name for name in ("failures.py", "batches.py")]
    assert len(files) > 10
    settled = [
        f"{file.relative_to(CHECKOUT)}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Mod)
        and isinstance(node.left, ast.Call)
        and getattr(node.left.func, "id", "") == "_"
    ]
    assert settled == []
