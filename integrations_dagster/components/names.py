"""What the components of a project call each other: models, destinations and warehouses by name, over all folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import dagster as dg
from dagster import ComponentTree

from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.components.destination import SANDBOX, Destination
from integrations_dagster.components.model import Model
from integrations_dagster.components.owners import conflict_of
from integrations_dagster.components.sync import Sync
from integrations_dagster.components.tree import IsolatingTree
from integrations_dagster.components.warehouse import Warehouse
from integrations_dagster.keys import near
from integrations_dagster.sync.spec import NO_WAREHOUSE, ModelSpec, SyncSpec, WarehouseSpec
from integrations_dagster.vocabulary import Misconfigured

C = TypeVar("C", bound=YamlComponent)


def target_in_force() -> str:
    """The target that INTEGRATIONS_TARGET picks, `sandbox` by default."""
    return os.environ.get("INTEGRATIONS_TARGET") or SANDBOX


class Names:
    """The components of a project and what their names mean.

    Args:
        tree: The project's component tree; loads every component of this package in it.
    """

    def __init__(self, tree: ComponentTree) -> None:
        self._root = tree.project_root.absolute()
        everything = tree.get_all_components(of_type=YamlComponent)  # type: ignore[type-abstract]
        self.warehouses: Sequence[Warehouse] = [c for c in everything if isinstance(c, Warehouse)]
        self.destinations: Sequence[Destination] = [c for c in everything if isinstance(c, Destination)]
        self.syncs: Sequence[Sync] = [c for c in everything if isinstance(c, Sync)]
        own = [model for sync in self.syncs if (model := sync.own_model()) is not None]
        self.models: Sequence[Model] = [*(c for c in everything if isinstance(c, Model)), *own]
        self._tree = tree

    @classmethod
    def of(cls, tree: ComponentTree) -> Names:
        """The names of a tree, read once: each of its components asks."""
        names = tree.__dict__.get("_integrations_names")
        if not isinstance(names, Names):
            names = tree.__dict__["_integrations_names"] = cls(tree)
        return names

    @property
    def shares_jobs(self) -> bool:
        """Whether jobs come from the first sync, not from the loader."""
        return not isinstance(self._tree, IsolatingTree)

    def check(self, component: YamlComponent) -> None:
        """Check a component as far as the others allow it.

        Raises:
            Misconfigured: Another component has its name, or a name in it is unknown, or it is wrong in itself.
        """
        others: Sequence[YamlComponent] = {
            Warehouse: self.warehouses,
            Destination: self.destinations,
        }.get(type(component), [*self.models, *self.syncs])
        for other in others:
            if other is not component and other.identity == component.identity:
                raise component.error(
                    "name", f"is taken by the {other.label} ({other.place or 'made in Python'}).", "Rename one of them."
                )
        if isinstance(component, Model):
            self.model_spec(component)
        if isinstance(component, Sync):
            self._check_owner(component, self.sync_spec(component))

    def _check_owner(self, sync: Sync, spec: SyncSpec) -> None:
        others = [other for component, other in self._sound_specs if component is not sync]
        conflict = conflict_of(spec, others)
        if conflict is not None:
            raise sync.error(tuple(conflict.key.split(".", 1)), conflict.what, conflict.remedy)

    @cached_property
    def _sound_specs(self) -> list[tuple[Sync, SyncSpec]]:
        """The syncs that are not wrong in themselves."""
        found = []
        for sync in self.syncs:
            # Whatever a destination's class raises: it is told where that sync is checked itself.
            with suppress(Exception):
                found.append((sync, self.sync_spec(sync)))
        return found

    def warehouse_spec(self, warehouse: Warehouse) -> WarehouseSpec:
        return warehouse.spec(self._root)

    def model_spec(self, model: Model) -> ModelSpec:
        named = {warehouse.identity for warehouse in self.warehouses}
        if model.read == "value" or (
            model.asset
            and not model.table
            and "warehouse" not in model.model_fields_set
            and model.warehouse not in named
        ):
            warehouse = NO_WAREHOUSE
        else:
            warehouse = self.warehouse_spec(
                self._find(model, "warehouse", model.warehouse, self.warehouses, "Warehouse")
            )
        spec = model.spec(self._root, warehouse)
        readers = self._readers(model.identity) if spec.cursor else ()
        homes = frozenset(sync.home for sync in self.syncs if sync.model_name == model.identity)
        sensitive = self._sensitive(model.identity, spec.warehouse.dialect)
        return replace(spec, sensitive=sensitive, readers=readers, homes=homes or spec.homes)

    def _readers(self, model: str) -> tuple[tuple[str, str], ...]:
        """The syncs of a model, each with the target in force."""
        return tuple(sorted((sync.name, target_in_force()) for sync in self.syncs if sync.model_name == model))

    def _sensitive(self, model: str, dialect: str) -> frozenset[str]:
        """Columns of a model that one of its syncs marks as sensitive, or makes a sensitive field from."""
        fields = [field for sync in self.syncs if sync.model_name == model for field in sync.fields.values()]
        return frozenset(column for field in fields if field.sensitive for column in field.columns(dialect))

    def sync_spec(self, sync: Sync, within: tuple[str, ...] = ()) -> SyncSpec:
        """The sync as plain values, for the target in force.

        Args:
            within: Syncs that look values up in this one, from the outermost.
        """
        model = self._find(sync, "model", sync.model_name, self.models, "Model")
        destination = self._find(sync, "destination", sync.destination, self.destinations, "Destination")
        try:
            model_spec = self.model_spec(model)
        except Misconfigured as error:
            raise sync.error("model", f'"{sync.model_name}" is broken: {error.message}', error.remedy) from error
        try:
            destination_spec = destination.spec(target_in_force())
        except Misconfigured as error:
            raise sync.error("destination", f"cannot be used: {error.message}", error.remedy) from error
        return sync.spec(model_spec, destination_spec, self._delivered(sync, (*within, sync.identity)))

    def _delivered(self, sync: Sync, within: tuple[str, ...]) -> dict[str, SyncSpec]:
        """The syncs that a sync looks values up in, by name."""
        found: dict[str, SyncSpec] = {}
        for name, keys in sync.looked_up.items():
            if keys.sync is None or keys.sync in found:
                continue
            path = ("lookups", name, "sync") if name in sync.lookups else (*name.split(".", 1), "lookup", "sync")
            if keys.sync in within:
                circle = " → ".join((*within[within.index(keys.sync) :], keys.sync))
                raise sync.error(
                    path, f"goes round in a circle: {circle}.", "One of them must be delivered without the other."
                )
            other = self._find(sync, "sync", keys.sync, self.syncs, "Sync", path)
            try:
                found[keys.sync] = self.sync_spec(other, within)
            except Misconfigured as error:
                if "in a circle" in error.message:
                    raise
                raise sync.error(path, f'"{keys.sync}" is broken: {error.message}', error.remedy) from error
        return found

    def references_of(self, destination: Destination) -> dict[str, tuple[str, ...]]:
        """What syncs look up in a destination's reference data: the columns they need, by name of the reference.

        Syncs that are broken look nothing up; they say so themselves.
        """
        found: dict[str, tuple[str, ...]] = {}
        for sync in self.syncs:
            if sync.destination != destination.name or not sync.looked_up:
                continue
            with suppress(Exception):
                for lookup in self.sync_spec(sync).lookups:
                    if lookup.reference is not None:
                        columns = (*found.get(lookup.reference, ()), lookup.key, lookup.value)
                        found[lookup.reference] = tuple(dict.fromkeys(columns))
        return found

    def sync_specs(self) -> list[SyncSpec]:
        return [self.sync_spec(sync) for sync in self.syncs]

    def partitions_def(self, model: str) -> dg.PartitionsDefinition | None:
        return next(m.partitions_def() for m in self.models if m.identity == model)

    def partitions(self) -> dict[str, dg.PartitionsDefinition | None]:
        """Partitions by name of the model."""
        return {model.identity: model.partitions_def() for model in self.models}

    def _find(
        self,
        asks: YamlComponent,
        key: str,
        name: str,
        known: Iterable[C],
        type_: str,
        path: tuple[str | int, ...] = (),
    ) -> C:
        names = {component.identity: component for component in known}
        if name in names:
            return names[name]
        there = f"{near(name, names)}Known: {', '.join(sorted(names)) or 'none'}."
        broken = self._tree.broken_with(name) if isinstance(self._tree, IsolatingTree) else ""
        raise asks.error(
            path or key,
            f'"{name}" is no {key} of this project.',
            f"{broken}{there} Fix the name, or define it in any folder of defs/: `type: integrations_dagster.{type_}`.",
        )


def shared_definitions(
    syncs: Sequence[SyncSpec], partitions: Mapping[str, dg.PartitionsDefinition | None]
) -> dg.Definitions:
    """Jobs, schedules, sensors and alerts of all syncs of a project."""
    from integrations_dagster.orchestration.alerts import alert_definitions
    from integrations_dagster.orchestration.jobs import job_definitions

    return dg.Definitions.merge(job_definitions(syncs, partitions), alert_definitions(syncs))
