"""What may be promised of hosts, written down beside what is promised."""

from typing import Any

from django.db import migrations, models
from django.db.models import BigIntegerField, F, FloatField, Value
from django.db.models.functions import Cast, Floor, Greatest, Least

SETTINGS = {
    "cpu_ratio": ("host.cpu_overprovisioning", 10.0),
    "memory_ratio": ("host.memory_overprovisioning", 1.0),
    "reserved_memory_bytes": ("host.reserved_memory", 1024**3),
}


def limit(total: Any, ratio: str) -> models.GeneratedField:
    """A whole number of what there is, times its ratio, within a column's reach."""
    number = Cast(total, FloatField()) * F(ratio)
    return models.GeneratedField(
        expression=Cast(Least(Floor(number), Value(2.0**62, FloatField())), BigIntegerField()),
        output_field=BigIntegerField(),
        db_persist=True,
    )


def write_rules(apps: Any, schema_editor: Any) -> None:
    """The settings that hold for each host: its own, else its cluster's, its zone's, the global one, the default."""
    names = [name for name, _default in SETTINGS.values()]
    overrides = apps.get_model("config", "Override").objects.filter(name__in=names)
    held = {(row.name, row.scope_uuid): row.value for row in overrides}
    capacities = apps.get_model("infra", "HostCapacity").objects
    for host, cluster, zone in capacities.values_list("host", "host__cluster", "host__cluster__zone"):
        rules = {
            field: next((held[name, at] for at in (host, cluster, zone, None) if (name, at) in held), default)
            for field, (name, default) in SETTINGS.items()
        }
        capacities.filter(host=host).update(**rules)


class Migration(migrations.Migration):
    dependencies = [
        ("infra", "0003_doctor"),
        ("config", "0001_initial"),
    ]

    operations = [
        migrations.AddField("hostcapacity", "cpu_ratio", models.FloatField(default=10.0)),
        migrations.AddField("hostcapacity", "memory_ratio", models.FloatField(default=1.0)),
        migrations.AddField("hostcapacity", "reserved_memory_bytes", models.BigIntegerField(default=1073741824)),
        migrations.AddField("hostcapacity", "cpu_limit", limit(F("cpu_total"), "cpu_ratio")),
        migrations.AddField(
            "hostcapacity",
            "memory_limit_bytes",
            limit(Greatest(F("memory_total_bytes") - F("reserved_memory_bytes"), Value(0)), "memory_ratio"),
        ),
        migrations.RunPython(write_rules, migrations.RunPython.noop, elidable=True),
    ]
