from django.core.validators import MinValueValidator
from django.db import models

from cloud.common.models import Available, Resource


class InstanceOffering(Resource, Available):
    """CPU and memory of an instance, by a name users choose. `cpu` counts virtual CPUs."""

    kind_word = "instance_offering"

    cpu = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    memory_bytes = models.PositiveBigIntegerField()

    class Meta(Resource.Meta):
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="instance_offering_name_once")]
