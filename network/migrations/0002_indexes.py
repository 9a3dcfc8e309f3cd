import django.contrib.postgres.indexes
from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations, models

import cloud.common.search


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("infra", "0001_initial"),
        ("network", "0001_initial"),
    ]

    operations = [
        TrigramExtension(),
        migrations.AddField(
            model_name="ipaddress",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=cloud.common.search.Folded(models.F("name"), cloud.common.search.Host(models.F("address"))),
                output_field=models.TextField(),
            ),
        ),
        migrations.AddField(
            model_name="nic",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=cloud.common.search.Folded(
                    models.F("instance_name"), models.F("mac"), cloud.common.search.Host(models.F("address"))
                ),
                output_field=models.TextField(),
            ),
        ),
        migrations.AddIndex(
            model_name="ipaddress",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["search_text"], name="ip_address_search", opclasses=["gin_trgm_ops"]
            ),
        ),
        migrations.AddIndex(
            model_name="nic",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["search_text"], name="nic_search", opclasses=["gin_trgm_ops"]
            ),
        ),
    ]
