"""Accounts, projects, users, tokens, and the caller's own face."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.response import Response

from cloud.accounts.api import serializers
from cloud.accounts.models import Account, ApiToken, Project, User
from cloud.accounts.services import accounts, projects, tokens, users
from cloud.common import permissions
from cloud.common.api.acts import act, creates, deletes, updates
from cloud.common.api.links import url_of
from cloud.common.api.views import ApiView
from cloud.common.api.viewsets import ResourceViewSet


class AccountViewSet(ResourceViewSet):
    queryset = Account.objects.all()
    serializer_class = serializers.AccountSerializer
    search_fields = ("name", "description")
    create = creates(accounts.create, serializers.AccountInput)
    partial_update = updates(accounts.update, serializers.AccountInput)
    destroy = deletes(accounts.delete)


class ProjectViewSet(ResourceViewSet):
    queryset = Project.objects.all()
    serializer_class = serializers.ProjectSerializer
    search_fields = ("name", "description")
    filterset_fields = ("account", "is_default")
    create = creates(projects.create, serializers.ProjectInput)
    partial_update = updates(projects.update)
    destroy = deletes(projects.delete)


class UserViewSet(ResourceViewSet):
    queryset = User.objects.prefetch_related("memberships")
    serializer_class = serializers.UserSerializer
    search_fields = ("username", "name", "email")
    filterset_fields = ("account", "is_active", "username")
    ordering_fields = ("created_at", "username")
    act_permissions = {"grant": "user.update", "revoke": "user.update"}
    create = creates(users.create, serializers.UserInput)
    partial_update = updates(users.update, serializers.UserChange)
    destroy = deletes(users.delete)
    grant = act(users.grant, serializers.GrantInput)
    revoke = act(users.revoke, serializers.RevokeInput)


class ApiTokenViewSet(ResourceViewSet):
    queryset = ApiToken.objects.all()
    serializer_class = serializers.ApiTokenSerializer
    filterset_fields = ("user", "project")
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
