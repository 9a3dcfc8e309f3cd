"""What one may do with the audit trail."""

from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("audit_record.view", _("See the operation log"))
