import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("compute", "0002_user_data_sealed"),
        ("infra", "0003_doctor"),
    ]

    operations = [
        migrations.CreateModel(
            name="UnknownDomain",
            fields=[
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=255)),
                ("description", models.TextField(blank=True, default="")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("domain_uuid", models.UUIDField()),
                ("state", models.CharField(max_length=16)),
                ("is_ours", models.BooleanField(default=False)),
                (
                    "host",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="unknown_domains", to="infra.host"
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.project"
                    ),
                ),
            ],
            options={
                "ordering": ["created_at", "uuid"],
                "abstract": False,
                "indexes": [models.Index(fields=["created_at", "uuid"], name="unknown_domain_created")],
                "constraints": [models.UniqueConstraint(fields=("host", "domain_uuid"), name="unknown_domain_once")],
            },
        ),
    ]
