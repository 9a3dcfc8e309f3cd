"""Where settings are in the API."""

from cloud.config.api.views import SettingViewSet

routes = [("settings", SettingViewSet)]
