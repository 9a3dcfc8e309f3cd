"""Accounts, projects, users, tokens, and the caller's own face."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.response import Response

from cloud.accounts.api import serializers
from cloud.accounts.models import Account, ApiToken, Project, User
from cloud.accounts.services import accounts, projects, quotas, tokens, users
from cloud.common import permissions
from cloud.common.api.acts import act, creates, deletes, updates
from cloud.common.api.filters import refuse_unknown
from cloud.common.api.links import url_of
from cloud.common.api.views import ApiView
from cloud.common.api.viewsets import ResourceViewSet


def _shown(owners: Iterable[Account | Project]) -> Response:
    """All quotas of these, in the envelope that every list has."""
    body = serializers.QuotaSerializer([row for owner in owners for row in quotas.usage(owner)], many=True).data
    return Response({"results": body, "next": None, "count": len(body), "count_is_estimate": False})


class Limited:
    """What accounts and projects have in common: their quotas."""

    actor: Any
    get_object: Any

    @extend_schema(responses=serializers.QuotaListSerializer, summary="What it has and may have", filters=False)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def quotas(self, request: Any, uuid: str) -> Response:
        owner = self.get_object()
        self.actor.require("quota.view")
        refuse_unknown(request, set())
        return _shown([owner])

    @extend_schema(
        request=serializers.LimitsInput,
        responses={200: serializers.QuotaListSerializer},
        summary="Set what it may have",
    )
    @quotas.mapping.patch
    def change_quotas(self, request: Any, uuid: str) -> Response:
        owner = self.get_object()
        self.actor.require("quota.change")
        taken = serializers.LimitsInput(data=request.data)
        taken.is_valid(raise_exception=True)
        limits = {each["name"]: each["limit"] for each in taken.validated_data["limits"]}
        quotas.change(owner, actor=self.actor, limits=limits)
        return _shown([owner])


class QuotasView(ApiView):
    @extend_schema(
        operation_id="quotas_list",
        responses=serializers.QuotaListSerializer,
        summary="What the caller's account, and the project they work in, have and may have",
    )
    def get(self, request: Any) -> Response:
        self.actor.require("quota.view")
        refuse_unknown(request, set())
        own: list[Account | Project] = [request.user.account]
        own += Project.objects.filter(pk__in=[self.actor.project])
        return _shown(own)


class AccountViewSet(Limited, ResourceViewSet):
    queryset = Account.objects.all()
    serializer_class = serializers.AccountSerializer
    search_fields = ("name", "description")
    create = creates(accounts.create, serializers.AccountInput)
    partial_update = updates(accounts.update, serializers.AccountInput)
    destroy = deletes(accounts.delete, needs_preview=True)


class ProjectViewSet(Limited, ResourceViewSet):
    queryset = Project.objects.all()
    serializer_class = serializers.ProjectSerializer
    search_fields = ("name", "description")
    create = creates(projects.create, serializers.ProjectInput)
    partial_update = updates(projects.update)
    destroy = deletes(projects.delete)


class UserViewSet(ResourceViewSet):
    queryset = User.objects.prefetch_related("memberships")
    serializer_class = serializers.UserSerializer
    search_fields = ("username", "name", "email")
    act_permissions = {"grant": "user.update", "revoke": "user.update"}
    create = creates(users.create, serializers.UserInput)
    partial_update = updates(users.update, serializers.UserChange)
    destroy = deletes(users.delete)
    grant = act(users.grant, serializers.GrantInput)
    revoke = act(users.revoke, serializers.RevokeInput)


class ApiTokenViewSet(ResourceViewSet):
    queryset = ApiToken.objects.all()
    serializer_class = serializers.ApiTokenSerializer
    destroy = deletes(tokens.delete)

    @extend_schema(
        request=serializers.ApiTokenInput,
        responses={201: serializers.CreatedApiTokenSerializer},
        summary="Make a token; its secret is in this answer only",
    )
    def create(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        self.admit("create")
        taken = serializers.ApiTokenInput(data=request.data, context=self.get_serializer_context())
        taken.is_valid(raise_exception=True)
        token, secret = tokens.create(actor=self.actor, **taken.validated_data)
        shown = serializers.CreatedApiTokenSerializer(token, context={"secret": secret})
        return Response(shown.data, status.HTTP_201_CREATED, headers={"Location": url_of(token)})


class MeView(ApiView):
    @extend_schema(responses=serializers.MeSerializer, summary="Who the caller is and what they may do")
    def get(self, request: Any) -> Response:
        actor = self.actor
        mine = list(Project.objects.filter(pk__in=actor.projects).order_by("name"))
        current = next((project for project in mine if project.pk == actor.project), None)
        shown = serializers.MeSerializer(
            {
                "user": request.user,
                "account": request.user.account,
                "project": current or Project.objects.filter(pk__in=[actor.project]).first(),
                "projects": mine,
                "permissions": [name for name in permissions.declared() if actor.may(name)],
                "sees_all": actor.sees_all,
                "via": actor.via,
            }
        )
        return Response(shown.data)
