from django.db import migrations, models


def seal(apps, schema_editor):
    """What users gave their guests leaves the database in clear; the key is outside of it."""
    from cloud.infra import secrets

    rows = apps.get_model("compute", "Instance").objects.exclude(user_data="")
    for key, given in rows.values_list("pk", "user_data").iterator():
        rows.filter(pk=key).update(user_data_sealed=secrets.seal(given), user_data="")


def unseal(apps, schema_editor):
    from cloud.infra import secrets

    rows = apps.get_model("compute", "Instance").objects.exclude(user_data_sealed="")
    for key, sealed in rows.values_list("pk", "user_data_sealed").iterator():
        rows.filter(pk=key).update(user_data=secrets.unseal(sealed), user_data_sealed="")


class Migration(migrations.Migration):
    dependencies = [
        ("compute", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="user_data_sealed",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.AlterField(
            model_name="instance",
            name="user_data",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.RunPython(seal, unseal),
    ]
