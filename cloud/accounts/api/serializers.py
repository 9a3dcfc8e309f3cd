"""What the API shows of accounts, projects, users and tokens, and what it takes for them."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from cloud.accounts import roles
from cloud.accounts.models import USERNAME, Account, ApiToken, Membership, Project, User
from cloud.accounts.services.quotas import MOST
from cloud.common.api.serializers import InputSerializer, Reference, ResourceSerializer, SummarySerializer


class AccountSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = Account
        fields = ["uuid", "name", "description", "created_at", "updated_at", "url"]


class AccountInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)


class ProjectSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = Project
        fields = ["uuid", "name", "description", "account", "is_default", "created_at", "updated_at", "url"]


class ProjectInput(AccountInput):
    account = Reference(Account, required=False)


class MembershipSerializer(serializers.ModelSerializer[Membership]):
    project = serializers.UUIDField(source="project_id", read_only=True)

    class Meta:
        model = Membership
        fields = ["project", "role"]
        read_only_fields = fields


class UserSerializer(ResourceSerializer):
    memberships = MembershipSerializer(many=True, read_only=True)

    class Meta(ResourceSerializer.Meta):
        model = User
        fields = [
            *("uuid", "username", "name", "email", "account", "is_active", "memberships", "last_login"),
            *("created_at", "updated_at", "url"),
        ]


class _UserFields(InputSerializer):
    name = serializers.CharField(max_length=255, allow_blank=True, required=False)
    email = serializers.EmailField(max_length=254, allow_blank=True, required=False)
    password = serializers.CharField(
        max_length=255,
        allow_blank=True,
        required=False,
        trim_whitespace=False,
        write_only=True,
        help_text="Empty: the user signs in by link or token only.",
    )


class UserInput(_UserFields):
    username = serializers.CharField(max_length=63, validators=[USERNAME])
    account = Reference(Account, required=False)
    role = serializers.ChoiceField(roles.CHOICES, required=False)
    project = Reference(Project, required=False, help_text="Where the role holds; the account's own one by default.")


class UserChange(_UserFields):
    is_active = serializers.BooleanField(required=False)


class GrantInput(InputSerializer):
    project = Reference(Project)
    role = serializers.ChoiceField(roles.CHOICES)


class RevokeInput(InputSerializer):
    project = Reference(Project)


class ApiTokenSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = ApiToken
        fields = [
            *("uuid", "name", "hint", "user", "project", "scopes", "expires_at", "last_used_at", "created_at", "url"),
        ]


class CreatedApiTokenSerializer(ApiTokenSerializer):
    """A token just made: the only answer that holds its secret."""

    token = serializers.SerializerMethodField()

    class Meta(ApiTokenSerializer.Meta):
        fields = [*ApiTokenSerializer.Meta.fields, "token"]

    def get_token(self, token: ApiToken) -> str:
        return str(self.context["secret"])


class ApiTokenInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    user = Reference(User, required=False)
    project = Reference(Project, required=False, allow_null=True)
    scopes = serializers.ListField(
        child=serializers.CharField(max_length=128),
        required=False,
        max_length=256,
        help_text="Permission names, as `instance.*`; none: all that the user may do.",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class QuotaSerializer(serializers.Serializer[Any]):
    """What an account or a project has of something, and what it may have."""

    scope = serializers.ChoiceField(["account", "project"], read_only=True)
    owner = SummarySerializer(read_only=True, help_text="The account or the project.")
    name = serializers.CharField(source="quota.name", read_only=True)
    label = serializers.CharField(source="quota.label", read_only=True)  # type: ignore[assignment]
    unit = serializers.CharField(
        source="quota.unit", read_only=True, help_text="`bytes`, or empty: a number of things."
    )
    used = serializers.IntegerField(read_only=True)
    limit = serializers.IntegerField(read_only=True, allow_null=True, help_text="Null: no limit.")
    available = serializers.IntegerField(read_only=True, allow_null=True)


@extend_schema_serializer(many=False)
class QuotaListSerializer(serializers.Serializer[Any]):
    """All quotas on one page, in the envelope that every list has."""

    results = QuotaSerializer(many=True, read_only=True)
    next = serializers.CharField(read_only=True, allow_null=True)
    count = serializers.IntegerField(read_only=True)
    count_is_estimate = serializers.BooleanField(read_only=True)


class LimitInput(InputSerializer):
    name = serializers.CharField(max_length=64)
    limit = serializers.IntegerField(
        min_value=0, max_value=MOST, allow_null=True, help_text="Null takes the limit away."
    )


class LimitsInput(InputSerializer):
    limits = serializers.ListField(child=LimitInput(), min_length=1, max_length=64)

    def validate_limits(self, limits: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len({each["name"] for each in limits}) < len(limits):
            raise serializers.ValidationError(_("Name each quota once."))
        return limits


class MeUserSerializer(serializers.Serializer[Any]):
    uuid = serializers.UUIDField(read_only=True)
    username = serializers.CharField(read_only=True)
    name = serializers.CharField(read_only=True)
    email = serializers.CharField(read_only=True)


class MeSerializer(serializers.Serializer[Any]):
    """Who the caller is and what they may do here."""

    user = MeUserSerializer(read_only=True)
    account = SummarySerializer(read_only=True)
    project = SummarySerializer(read_only=True, allow_null=True)
    projects = SummarySerializer(many=True, read_only=True)
    permissions = serializers.ListField(child=serializers.CharField(), read_only=True)
    sees_all = serializers.BooleanField(read_only=True)
    via = serializers.CharField(read_only=True, help_text="`token` or `session`.")
