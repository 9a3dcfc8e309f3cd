"""What one may do with accounts, projects, users and tokens."""

from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("account.view", _("See accounts"))
declare("account.create", _("Create accounts"))
declare("account.update", _("Change accounts"))
declare("account.delete", _("Delete accounts"))
declare("project.view", _("See projects"))
declare("project.create", _("Create projects"))
declare("project.update", _("Change projects"))
declare("project.delete", _("Delete projects"))
declare("user.view", _("See users"))
declare("user.create", _("Create users"))
declare("user.update", _("Change users and their roles"))
declare("user.delete", _("Delete users"))
declare("user.sign_in_as", _("Make sign-in links for users"))
declare("api_token.view", _("See API tokens"))
declare("api_token.create", _("Create API tokens"))
declare("api_token.delete", _("Delete API tokens"))
declare("quota.view", _("See quotas and what is used of them"))
declare("quota.change", _("Change quotas"))
