"""Table function `view_instance(view set, instance id)`: the rows of one process or stream, or the global ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from micromegas.query.errors import QueryError
from micromegas.query.table_function import Parameter, TableFunction
from micromegas.query.tables import InstanceView, LakeAccess, QueryTable
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet


class ViewInstance(TableFunction):
    """`view_instance`; `global` instances are the very tables that a name in FROM gives."""

    name = "view_instance"
    parameters = (Parameter("view_set"), Parameter("instance_id"))
    schemas = tuple(view_set.schema for view_set in VIEW_SETS.values())
    description = (
        "The rows of one process or stream of a view set, made when they are asked for; `global` is the instance that "
        "the view set's name alone gives."
    )
    example = (
        "SELECT name, depth, duration FROM view_instance('thread_spans', '$thread') WHERE depth <= 1 ORDER BY begin"
    )

    def __init__(self, access: LakeAccess, global_views: Mapping[str, QueryTable]) -> None:
        self._access = access
        self._global_views = global_views

    def table(self, view_set_name: str, instance_id: str) -> QueryTable:
        view_set = VIEW_SETS.get(view_set_name)
        if view_set is None and view_set_name not in self._global_views:
            raise QueryError("invalid", f"unknown view set {view_set_name!r}")
        if view_set is None or view_set.decoded is None:
            raise QueryError("invalid", f"view set {view_set_name} has no instances: name it in FROM")
        if instance_id == GLOBAL_INSTANCE:
            if not view_set.has_global:
                raise QueryError("invalid", f"view set {view_set_name} has no global instance")
            return self._global_views[view_set_name]
        return InstanceView(self._access, view_set, _checked_id(view_set, instance_id))


def _checked_id(view_set: ViewSet, instance_id: str) -> str:
    try:
        return str(uuid.UUID(instance_id))
    except ValueError:
        kind = view_set.instance_kind.value if view_set.instance_kind is not None else "instance"
        raise QueryError("invalid", f"{instance_id!r} is not the id of a {kind}") from None
