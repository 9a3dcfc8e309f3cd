import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="CleanUp",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.IntegerField()),
                ("name", models.CharField(max_length=64)),
                ("agent", models.UUIDField(null=True)),
                ("machine", models.CharField(blank=True, default="", max_length=255)),
                (
                    "state",
                    models.CharField(
                        choices=[("owed", "Owed"), ("done", "Done"), ("failed", "Failed")],
                        default="owed",
                        max_length=16,
                    ),
                ),
                ("error", models.JSONField(null=True)),
                ("attempt", models.IntegerField(default=1)),
                ("sent_at", models.DateTimeField(null=True)),
                ("due_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("done_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-position"],
            },
        ),
        migrations.AddField(
            model_name="job",
            name="look_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="plan",
            field=models.JSONField(db_default=models.Value([], models.JSONField()), default=list),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False)), fields=["finished_at"], name="job_finished"
            ),
        ),
        migrations.AddField(
            model_name="cleanup",
            name="job",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="clean_ups", to="jobs.job"
            ),
        ),
        migrations.AddIndex(
            model_name="cleanup",
            index=models.Index(condition=models.Q(("state", "owed")), fields=["agent"], name="clean_up_owed_agent"),
        ),
        migrations.AddIndex(
            model_name="cleanup",
            index=models.Index(condition=models.Q(("state", "owed")), fields=["job"], name="clean_up_owed_job"),
        ),
        migrations.AddConstraint(
            model_name="cleanup",
            constraint=models.UniqueConstraint(fields=("job", "position"), name="clean_up_once"),
        ),
    ]
