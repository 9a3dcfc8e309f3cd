"""Django's settings: the composition root. What an operator may change is read by `environment` and documented in
docs/configuration.md."""

from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

from cloud.settings.environment import CHECKOUT, database, names, setting, switch
from cloud.settings.frontend import VENDOR

DATA = Path(setting("data", "/var/lib/mica/default"))


def _secret_key() -> str:
    place = setting("secret_key_file")
    key = Path(place).read_text().strip() if place else setting("secret_key")
    if not key:
        raise ImproperlyConfigured("There is no secret key: name a file that holds one in MICA_SECRET_KEY_FILE.")
    return key


SECRET_KEY = _secret_key()
DEBUG = False
ALLOWED_HOSTS = names("allowed_hosts", "localhost,127.0.0.1,[::1],testserver")
BASE_URL = setting("base_url", "http://localhost:8000")
CSRF_TRUSTED_ORIGINS = [BASE_URL]

INSTALLED_APPS = [
    "cloud.portal",
    "monitoring",
    "compute",
    "storage",
    "network",
    "cloud.infra",
    "cloud.accounts",
    "cloud.jobs",
    "cloud.events",
    "cloud.config",
    "cloud.common",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "cloud.common.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "cloud.common.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "cloud.urls"
ASGI_APPLICATION = "cloud.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [CHECKOUT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

DATABASES = {
    "default": database(
        setting("database_url", "postgresql://mica@%2Frun%2Fmica/mica"), int(setting("database_pool", "0"))
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = setting("redis_url", "redis://127.0.0.1:6379/0")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"socket_connect_timeout": 2, "socket_timeout": 5},
    }
}
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
}

AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/signin/"
CSRF_FAILURE_VIEW = "cloud.portal.views.csrf_failure"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 7200
SESSION_SAVE_EVERY_REQUEST = False
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
IS_TLS = switch("tls")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_TLS
SECURE_HSTS_SECONDS = 31536000 if IS_TLS else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Chinese"))]
LOCALE_PATHS = [CHECKOUT / "cloud" / "locale"]
USE_I18N = USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATIC_ROOT = DATA / "static"
STATICFILES_DIRS = [CHECKOUT / "static", *VENDOR]
WHITENOISE_USE_FINDERS = True

DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024

MICA: dict[str, Any] = {
    "instance": setting("instance", "default"),
    "data": DATA,
    "pki": Path(setting("pki", str(DATA / "pki"))),
    "agent_redis_url": setting("agent_redis_url"),
    "metrics_url": setting("metrics_url", "http://127.0.0.1:8428"),
    "agent_metrics_url": setting("agent_metrics_url"),
    "vmauth_file": setting("vmauth_file"),
    "vmauth_reload_url": setting("vmauth_reload_url"),
    "management_networks": names("management_networks", ""),
    "storage_networks": names("storage_networks", ""),
    "allow_loopback_hosts": switch("allow_loopback_hosts"),
    "lease_s": float(setting("job_lease_s", "15")),
    "resend_after_s": float(setting("job_resend_after_s", "15")),
}

from cloud.settings.api import REST_FRAMEWORK, SPECTACULAR_SETTINGS  # noqa: E402, F401
from cloud.settings.celery import *  # noqa: E402, F403
from cloud.settings.logging import LOGGING  # noqa: E402, F401
