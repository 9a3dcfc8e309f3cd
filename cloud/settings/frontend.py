"""Front-end packages, served from node_modules as npm laid them there, below /static/vendor/."""

from cloud.settings.environment import CHECKOUT

# What is served of a package is its finished files, never its whole folder.
FOLDERS = {
    "vendor/htmx": "htmx.org/dist",
    "vendor/tabler": "@tabler/core/dist",
    "vendor/icons": "@tabler/icons-sprite/dist",
    "vendor/novnc": "@novnc/novnc/core",
    "vendor/xterm": "@xterm/xterm",
    "vendor/plotly": "plotly.js-finance-dist-min",
    "vendor/inter": "@fontsource-variable/inter",
    "vendor/jetbrains-mono": "@fontsource-variable/jetbrains-mono",
    "vendor/barlow-condensed": "@fontsource/barlow-condensed",
}
NODE_MODULES = CHECKOUT / "node_modules"

# A process that serves no pages may run where npm never did.
VENDOR = [(prefix, NODE_MODULES / folder) for prefix, folder in FOLDERS.items() if (NODE_MODULES / folder).is_dir()]
