from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

declare(
    "lab.is_seeded",
    "boolean",
    False,
    label=_("The lab was filled once"),
    help=_("Set when the first instance was made on a lab cloud; deleting that instance is respected from then on."),
)
