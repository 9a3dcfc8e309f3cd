"""What may be promised of storages, written down beside what is promised; what volumes may do a second."""

from typing import Any

from django.db import migrations, models
from django.db.models import BigIntegerField, F, FloatField, Value
from django.db.models.functions import Cast, Floor, Greatest, Least

SETTINGS = {
    "ratio": ("primary_storage.overprovisioning", 1.0),
    "reserved_bytes": ("primary_storage.reserved_capacity", 1024**3),
}


def limit() -> models.GeneratedField:
    """What is free and what the storage's own files take, less the reserve, times the ratio."""
    usable = Greatest(F("available_bytes") + F("held_bytes") - F("reserved_bytes"), Value(0))
    number = Cast(usable, FloatField()) * F("ratio")
    return models.GeneratedField(
        expression=Cast(Least(Floor(number), Value(2.0**62, FloatField())), BigIntegerField()),
        output_field=BigIntegerField(),
        db_persist=True,
    )


def write_rules(apps: Any, schema_editor: Any) -> None:
    """The settings that hold for each: the storage's own, else the cluster's, the zone's, the global one, the default."""
    names = [name for name, _default in SETTINGS.values()]
    overrides = apps.get_model("config", "Override").objects.filter(name__in=names)
    held = {(row.name, row.scope_uuid): row.value for row in overrides}
    capacities = apps.get_model("storage", "StorageCapacity").objects
    for key, *scopes in capacities.values_list("pk", "primary_storage", "host__cluster", "primary_storage__zone"):
        places = [scope for scope in scopes if scope is not None] + [None]
        rules = {
            field: next((held[name, at] for at in places if (name, at) in held), default)
            for field, (name, default) in SETTINGS.items()
        }
        capacities.filter(pk=key).update(**rules)


class Migration(migrations.Migration):
    dependencies = [
        ("storage", "0001_initial"),
        ("config", "0001_initial"),
    ]

    operations = [
        migrations.AddField("storagecapacity", "ratio", models.FloatField(default=1.0)),
        migrations.AddField("storagecapacity", "reserved_bytes", models.BigIntegerField(default=1073741824)),
        migrations.AddField("storagecapacity", "limit_bytes", limit()),
        migrations.RunPython(write_rules, migrations.RunPython.noop, elidable=True),
        migrations.AddField("volume", "read_iops", models.PositiveIntegerField(blank=True, null=True)),
        migrations.AddField("volume", "write_iops", models.PositiveIntegerField(blank=True, null=True)),
        migrations.AddField("volume", "read_bytes_per_s", models.BigIntegerField(blank=True, null=True)),
        migrations.AddField("volume", "write_bytes_per_s", models.BigIntegerField(blank=True, null=True)),
    ]
