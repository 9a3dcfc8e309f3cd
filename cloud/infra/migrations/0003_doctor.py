import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("infra", "0002_agent_keys"),
    ]

    operations = [
        migrations.AddField(
            model_name="desiredsection",
            name="behind_since",
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name="QuarantinedThing",
            fields=[
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=64)),
                ("keeper", models.CharField(blank=True, default="", max_length=64)),
                ("resource_type", models.CharField(max_length=64)),
                ("resource_uuid", models.CharField(blank=True, default="", max_length=64)),
                ("name", models.CharField(max_length=255)),
                ("thing", models.JSONField(default=dict)),
                ("rows", models.JSONField(default=list)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "agent",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quarantined",
                        to="infra.agent",
                    ),
                ),
            ],
            options={
                "ordering": ["created_at", "uuid"],
                "indexes": [models.Index(fields=["created_at", "uuid"], name="quarantined_created")],
            },
        ),
    ]
