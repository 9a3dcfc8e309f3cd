import django.contrib.postgres.indexes
from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations, models

import cloud.common.search


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("infra", "0001_initial"),
        ("storage", "0002_limits"),
    ]

    operations = [
        TrigramExtension(),
        migrations.AddField(
            model_name="volume",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=cloud.common.search.Folded(models.F("name")),
                output_field=models.TextField(),
            ),
        ),
        migrations.AddIndex(
            model_name="volume",
            index=models.Index(fields=["project", "created_at", "uuid"], name="volume_project"),
        ),
        migrations.AddIndex(
            model_name="volume",
            index=models.Index(fields=["name", "uuid"], name="volume_name"),
        ),
        migrations.AddIndex(
            model_name="volume",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["search_text"], name="volume_search", opclasses=["gin_trgm_ops"]
            ),
        ),
    ]
