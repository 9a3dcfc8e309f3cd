import django.contrib.postgres.indexes
from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations, models

import cloud.common.search


class Migration(migrations.Migration):
    dependencies = [
        ("events", "0001_initial"),
    ]

    operations = [
        TrigramExtension(),
        migrations.AddField(
            model_name="auditrecord",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=cloud.common.search.Folded(
                    models.F("action"), models.F("actor_name"), models.F("resource_name")
                ),
                output_field=models.TextField(),
            ),
        ),
        migrations.AddIndex(
            model_name="auditrecord",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["search_text"], name="audit_search", opclasses=["gin_trgm_ops"]
            ),
        ),
    ]
