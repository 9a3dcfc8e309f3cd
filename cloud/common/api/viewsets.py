"""Bases of lists. A new resource is data: a queryset, serializers, filters, and services for its acts."""

from collections.abc import Mapping
from inspect import getattr_static
from typing import Any, ClassVar

from django.utils.translation import gettext as _
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from cloud.common.acts import Act, act_of, answers
from cloud.common.api import batch, columns
from cloud.common.api.acts import Performed
from cloud.common.api.filters import FieldFilters, TextSearch
from cloud.common.api.paging import KeySetPaging
from cloud.common.api.views import ApiMixin
from cloud.common.errors import Invalid, Missing
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
    default_ordering = "created_at"
    ordering_fields: Any = columns.Orderings()
    filterset_fields: Any = columns.Filters()
    more_filters: ClassVar[tuple[str, ...]] = ()  # beside the columns that the list shows
    query_parameters: ClassVar[tuple[str, ...]] = ("fields",)
    list_serializer_class: Any = None
    # Columns that the list does not show and that are worth leaving where they are.
    not_listed: ClassVar[tuple[str, ...]] = ()
    view_permission = ""
    # The permissions of acts, by their names, where they are not `<kind>.<act>`: {"create": "image.add"}.
    act_permissions: ClassVar[dict[str, str]] = {}
    # Services of acts on a row that are not made by `cloud.common.api.acts`, by their names in the API.
    other_acts: ClassVar[Mapping[str, Any]] = {}
    queryset: Any
    prefix: ClassVar[str] = ""  # the list's name in the API, told by the router
    # Actions that are answered with a batch's parent job.
    batch_actions: ClassVar[frozenset[str]] = frozenset({"batch"})
    acts: ClassVar[dict[str, Act]] = {}
    verbs: ClassVar[dict[str, Performed]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        found = [getattr(getattr_static(cls, name), "performed", None) for name in dir(cls)]
        done = {performed.name: performed for performed in found if performed and performed.name != "create"}
        services = {name: performed.service for name, performed in done.items()} | dict(cls.other_acts)
        cls.acts = {name: act for name, service in services.items() if (act := act_of(service))}
        cls.verbs = {name: performed for name, performed in done.items() if name != "update"}
        for name, performed in list(cls.verbs.items()):
            # An act is also known by the word of its permission: deleting an instance is destroying it.
            word = performed.act.permission.partition(".")[2] if performed.act else name
            if word not in done and name == "delete":
                cls.verbs[word] = performed
        if cls.verbs:
            cls.batch = batch.door(cls.__name__.removesuffix("ViewSet"), cls.verbs)  # type: ignore[attr-defined]

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.action in self.batch_actions:
            accept = self.post
            self.post = lambda *given, **named: batch.finish(accept(*given, **named))

    def get_queryset(self) -> Any:
        queryset: Any = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return queryset.none()
        if self.action == "list" and self.not_listed:
            queryset = queryset.defer(*self.not_listed)
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
        is_with_acts = self._wants_acts(request.query_params.get("fields"))
        page: Any = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        shown = self.get_serializer(page, many=True).data
        if is_with_acts:
            said = answers(page, self.acts, self.actor)
            shown = [{**row, "acts": said[each.pk]} for row, each in zip(shown, page, strict=True)]
        return self.get_paginated_response(shown)

    def retrieve(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        row = self.get_object()
        shown = self.get_serializer(row).data
        if self.acts:
            shown = {**shown, "acts": answers([row], self.acts, self.actor)[row.pk]}
        return Response(shown)

    def _wants_acts(self, fields: str | None) -> bool:
        if fields is not None and (fields != "acts" or not self.acts):
            reason = _("Give fields=acts, or leave it out.") if self.acts else _("This list has no further fields.")
            raise Invalid(_("There are no such fields."), code="bad_fields", errors={"fields": [reason]})
        return fields is not None

    def admit_look(self) -> None:
        """Raise NotPermitted unless the caller may see resources of this kind."""
        self.actor.require(self.view_permission or f"{kind_of(self.queryset.model)}.view")

    def admit(self, verb: str) -> None:
        """Raise NotPermitted when the caller lacks the act's permission.

        The service checks it again; here it comes before the input is looked at.
        """
        permission = self.permission_of(verb)
        if is_declared(permission):
            self.actor.require(permission)

    def permission_of(self, verb: str) -> str:
        """The name of the permission that an act of this list needs."""
        usual = "state.settle" if verb == "settle_state" else f"{kind_of(self.queryset.model)}.{verb}"
        return self.act_permissions.get(verb, usual)
