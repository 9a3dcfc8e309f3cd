"""Domains that the doctor took out of the way: their description and seed, where they can be defined again from.

`<state>/quarantine/<id>/domain.xml`      what libvirt knew of it, as a stopped domain
`<state>/quarantine/<id>/seed.iso`        its first-boot disk, where it had one
`<state>/quarantine/<id>/manifest.json`   which domain this is; written last
"""

import json
import shutil
import time
from pathlib import Path

from compute.drivers.base import not_set_aside
from compute.drivers.libvirt.host import HostFiles, canonical
from compute.messages import AsideDomain

_XML, _SEED, _MANIFEST = "domain.xml", "seed.iso", "manifest.json"


class DomainQuarantine:
    def __init__(self, state_dir: Path, files: HostFiles) -> None:
        self._folder, self._files = state_dir / "quarantine", files

    def has(self, id: str) -> bool:
        return (self._of(id) / _MANIFEST).exists()

    def keep(self, id: str, uuid: str, name: str, xml: str) -> None:
        """Write down all that is needed to define the domain again. The seed is copied: it may still be in use."""
        folder = self._of(id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _XML).write_text(xml)
        if self._files.seed(uuid).exists():
            shutil.copy2(self._files.seed(uuid), folder / _SEED)
        about = AsideDomain(id, uuid, name, time.time()).to_document()
        (folder / "manifest.part").write_text(json.dumps(about, indent=1))
        (folder / "manifest.part").replace(folder / _MANIFEST)

    def xml(self, id: str) -> str:
        """The description. Raises NotFound."""
        if not self.has(id):
            raise not_set_aside(id)
        return (self._of(id) / _XML).read_text()

    def give_seed_back(self, id: str) -> None:
        folder = self._of(id)
        if (folder / _SEED).exists():
            seed = self._files.seed(self._about(folder).uuid)
            seed.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / _SEED, seed)

    def forget(self, id: str) -> None:
        """Absent is fine."""
        shutil.rmtree(self._of(id), ignore_errors=True)

    def domains(self) -> tuple[AsideDomain, ...]:
        manifests = sorted(self._folder.glob(f"*/{_MANIFEST}"))
        return tuple(self._about(manifest.parent) for manifest in manifests)

    def uuid(self, id: str) -> str:
        return self._about(self._of(id)).uuid

    def _of(self, id: str) -> Path:
        return self._folder / canonical(id)

    @staticmethod
    def _about(folder: Path) -> AsideDomain:
        return AsideDomain.from_document(json.loads((folder / _MANIFEST).read_text()))
