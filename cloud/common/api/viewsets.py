"""Bases of lists. A new resource is data: a queryset, serializers, filters, and services for its acts."""

from typing import Any, ClassVar

from django.utils.translation import gettext as _
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from cloud.common.api.filters import FieldFilters, TextSearch
from cloud.common.api.paging import KeySetPaging
from cloud.common.api.views import ApiMixin
from cloud.common.errors import Missing
from cloud.common.permissions import is_declared
from cloud.common.resources import kind_of

UUID_PATTERN = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"


class ResourceViewSet(ApiMixin, GenericViewSet[Any]):
    """A list of resources with their details; its rows are always those that the caller may see.

    Acts are attributes made by `cloud.common.api.acts`:

        class InstanceViewSet(ResourceViewSet):
            queryset = Instance.objects.select_related("host")
            serializer_class = InstanceSerializer
            filterset_fields = ("state", "host")
            create = creates(instances.create, InstanceInput, is_job=True)
            partial_update = updates(instances.update)
            destroy = deletes(instances.destroy, is_job=True)
            start = job_action(instances.start)
    """

    lookup_field = "pk"
    lookup_url_kwarg = "uuid"
    lookup_value_regex = UUID_PATTERN
    pagination_class: Any = KeySetPaging
    filter_backends: Any = [FieldFilters, TextSearch]
    search_fields: ClassVar[Any] = ("name",)
    ordering_fields: ClassVar[Any] = ("created_at", "name")
    default_ordering = "created_at"
    filterset_fields: ClassVar[Any] = ()
    list_serializer_class: Any = None
    view_permission = ""
    # The permissions of acts, by their names, where they are not `<kind>.<act>`: {"create": "image.add"}.
    act_permissions: ClassVar[dict[str, str]] = {}
    queryset: Any

    def get_queryset(self) -> Any:
        queryset: Any = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return queryset.none()
        return queryset.visible_to(self.actor)

    def get_serializer_class(self) -> Any:
        if self.action == "list" and self.list_serializer_class is not None:
            return self.list_serializer_class
        return super().get_serializer_class()

    def get_object(self) -> Any:
        """The row of the URL. Raises Missing, whether it does not exist or is not the caller's."""
        found = self.get_queryset().filter(pk=self.kwargs[self.lookup_url_kwarg]).first()
        if found is None:
            raise Missing(_("There is no such resource."), resource=self.kwargs[self.lookup_url_kwarg])
        if self.action == "retrieve":
            self.admit_look()
        return found

    def list(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        self.admit_look()
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def retrieve(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    def admit_look(self) -> None:
        """Raise NotPermitted unless the caller may see resources of this kind."""
        self.actor.require(self.view_permission or f"{kind_of(self.queryset.model)}.view")

    def admit(self, verb: str) -> None:
        """Raise NotPermitted when the caller lacks the act's permission.

        The service checks it again; here it comes before the input is looked at.
        """
        permission = self.act_permissions.get(verb, f"{kind_of(self.queryset.model)}.{verb}")
        if is_declared(permission):
            self.actor.require(permission)
