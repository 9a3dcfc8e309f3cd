"""Signing in by link, the API's documentation in a session, and health."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser

from cloud.accounts.services import bootstrap, links
from cloud.common.actor import platform
from cloud.events.models import AuditRecord
from tests.base.api import Problems
from tests.factories.accounts import member

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser() -> Browser:
    return Browser(enforce_csrf_checks=True)


def sign_in(browser: Browser, user: Any) -> Any:
    return browser.get(f"/signin/{links.create(user, actor=platform())}/")


class TestSignIn(Problems):
    def test_link_to_docs(self, browser: Browser) -> None:
        response = sign_in(browser, bootstrap.ensure_admin())
        assert (response.status_code, response.headers["Location"]) == (302, "/")
        assert response.headers["Cache-Control"].count("no-store") == 1
        page = browser.get("/", follow=True)
        assert page.redirect_chain[-1][0] == "/api/v1/docs/"
        assert "Signed in as admin" in page.content.decode()
        assert browser.get("/api/v1/me/").json()["via"] == "session"
        assert AuditRecord.objects.get(action="user.sign_in").actor_name == "admin"

    def test_once(self, browser: Browser) -> None:
        secret = links.create(bootstrap.ensure_admin(), actor=platform())
        assert browser.head(f"/signin/{secret}/").status_code == 410
        assert browser.get(f"/signin/{secret}/").status_code == 302
        again = Browser().get(f"/signin/{secret}/")
        assert again.status_code == 410
        assert "sessionid" not in again.cookies

    def test_the_log_does_not_hold_the_secret(self, browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        secret = links.create(bootstrap.ensure_admin(), actor=platform())
        browser.get(f"/signin/{secret}/")
        assert "/signin/<secret>/" in caplog.text
        assert secret not in caplog.text

    def test_the_session_is_a_fresh_one(self, browser: Browser) -> None:
        sign_in(browser, bootstrap.ensure_admin())
        before = browser.cookies["sessionid"].value
        sign_in(browser, member())
        assert browser.cookies["sessionid"].value != before
        assert browser.get("/api/v1/me/").json()["user"]["username"] != "admin"

    def test_changes_need_the_csrf_token(self, browser: Browser) -> None:
        sign_in(browser, bootstrap.ensure_admin())
        refused = browser.post("/api/v1/accounts/", {"name": "x"}, content_type="application/json")
        self.assert_problem(refused, 403, "csrf_failed")
        browser.get("/api/v1/docs/")
        done = browser.post(
            "/api/v1/accounts/",
            {"name": "x"},
            content_type="application/json",
            headers={"X-CSRFToken": browser.cookies["csrftoken"].value},
        )
        assert done.status_code == 201

    def test_sign_out(self, browser: Browser) -> None:
        sign_in(browser, bootstrap.ensure_admin())
        assert browser.get("/signout/").status_code == 405
        self.assert_problem(browser.post("/signout/"), 403, "csrf_failed")
        page = browser.post("/signout/", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
        browser.get("/api/v1/docs/")
        browser.post("/signout/", headers={"X-CSRFToken": browser.cookies["csrftoken"].value})
        self.assert_problem(browser.get("/api/v1/me/"), 401, "not_signed_in")

    def test_an_inactive_user_is_out_at_once(self, browser: Browser) -> None:
        user = member()
        sign_in(browser, user)
        type(user).objects.filter(pk=user.pk).update(is_active=False)
        self.assert_problem(browser.get("/api/v1/me/"), 401, "not_signed_in")


class TestPages(Problems):
    def test_docs_come_from_here_alone(self, browser: Browser) -> None:
        page = browser.get("/api/v1/docs/")
        text = page.content.decode()
        assert "http://" not in text
        assert "https://" not in text
        assert "<style" not in text
        assert "<script>" not in text
        assert "script-src" not in page.headers["Content-Security-Policy"]
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]

    def test_unknown_page(self, browser: Browser) -> None:
        self.assert_problem(browser.get("/nonsense"), 404, "unknown_route")


class TestHealth:
    def test_well(self, browser: Browser) -> None:
        response = browser.get("/healthz")
        assert (response.status_code, response.json()["status"]) == (200, "ok")

    def test_redis_is_away(self, browser: Browser, settings: Any, tmp_path: Any) -> None:
        settings.REDIS_URL = f"unix://{tmp_path}/none.sock"
        response = browser.get("/healthz")
        assert response.status_code == 503
        assert response.json()["checks"] == {"database": True, "redis": False}

    def test_the_database_is_away(self, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        from cloud.portal import health

        def away() -> None:
            raise OSError

        monkeypatch.setattr(health, "_database", away)
        assert browser.get("/healthz").json()["checks"]["database"] is False
        assert connection.connection is None or not connection.connection.closed
