import django.contrib.postgres.indexes
from django.db import migrations, models

import cloud.common.search


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("compute", "0003_unknown_domains"),
        ("infra", "0001_initial"),
        ("storage", "0001_initial"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="instance",
            name="instance_name_search",
        ),
        migrations.AddField(
            model_name="instance",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=cloud.common.search.Folded(models.F("name")),
                output_field=models.TextField(),
            ),
        ),
        migrations.AddIndex(
            model_name="instance",
            index=models.Index(
                condition=models.Q(("activity", ""), _negated=True), fields=["activity"], name="instance_activity"
            ),
        ),
        migrations.AddIndex(
            model_name="instance",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["search_text"], name="instance_search", opclasses=["gin_trgm_ops"]
            ),
        ),
    ]
