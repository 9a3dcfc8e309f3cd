import django.contrib.postgres.indexes
from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations, models

import cloud.common.search


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0003_results"),
    ]

    operations = [
        TrigramExtension(),
        migrations.AddField(
            model_name="job",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=cloud.common.search.Folded(models.F("resource_name"), models.F("workflow")),
                output_field=models.TextField(),
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["search_text"], name="job_search", opclasses=["gin_trgm_ops"]
            ),
        ),
    ]
