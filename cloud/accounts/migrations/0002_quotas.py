"""Limits of accounts and projects, with what is used of them. None is set: nothing is limited yet."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="QuotaUsage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=64)),
                ("used", models.BigIntegerField()),
                ("limit", models.BigIntegerField()),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "account",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quotas",
                        to="accounts.account",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quotas",
                        to="accounts.project",
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
                "constraints": [
                    models.UniqueConstraint(fields=("account", "name"), name="quota_account_once"),
                    models.UniqueConstraint(fields=("project", "name"), name="quota_project_once"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("account__isnull", True), ("project__isnull", False)),
                            models.Q(("account__isnull", False), ("project__isnull", True)),
                            _connector="OR",
                        ),
                        name="quota_of_one_owner",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("limit__gte", 0), ("used__gte", 0)), name="quota_not_negative"
                    ),
                ],
            },
        ),
    ]
