"""The tree keeps its floors, its purity and its sizes; and the checker would see it if it did not."""

from pathlib import Path

import pytest

from tests import floors

ROOT = Path(__file__).parent.parent


def test_tree_keeps_its_rules() -> None:
    """No import goes up, nothing pure reads a clock or a disk, no file and no function is too long."""
    assert floors.breaches(floors.sources(ROOT)) == []


def test_all_three_packages_are_read() -> None:
    """A checker that reads nothing would find nothing."""
    read = floors.sources(ROOT)
    for module in ("broker.session", "provisioner.model.request", "provisioner.services.provisioning", "device_sim"):
        assert module in read


PLANTED = (
    ("provisioner.model.request", "from provisioner.store.disk import Disk\n", "floor 2 is above floor 0"),
    ("provisioner.model.names", "import provisioner.model.ports\n", "floor 1 is above floor 0"),
    ("provisioner.services.effects", "from provisioner.doors import cli\n", "floor 4 is above floor 3"),
    ("provisioner.services.effects", "def f():\n    import provisioner.doors.cli\n", "floor 4 is above floor 3"),
    ("provisioner.doors.cli", "from provisioner.app import serve\n", "floor 5 is above floor 4"),
    (
        "provisioner.services.effects",
        "if TYPE_CHECKING:\n    from provisioner.app import Service\n",
        "floor 5 is above floor 3",
    ),
    ("provisioner.store.disk", "from provisioner.vault.keyring import KeyRing\n", "do not know each other"),
    ("provisioner.novelty.part", "from provisioner.model import names\n", "has no floor yet"),
    ("provisioner.services.effects", "import broker.gate\n", "know the gate"),
    ("broker.hall", "from provisioner.model.names import check_username\n", "nothing of what stands behind it"),
    ("device_sim.fleet", "from provisioner.services.platform import Platform\n", "the simulator uses"),
    ("provisioner.app", "from device_sim.fleet import Fleet\n", "knows the simulator"),
    ("provisioner.services.effects", "from tests.floors import floor\n", "nothing of the tests"),
    ("provisioner.services.effects", "from . import platform\n", "imports are absolute"),
    ("broker.gate", "import amqtt.broker\n", "confined to broker.embedded"),
    ("provisioner.model.user", "import yaml\n", "standard library alone"),
    ("provisioner.model.user", "import time\n", "pure, but imports time"),
    ("broker.limits", "from time import monotonic\n", "pure, but imports time.monotonic"),
    ("broker.session", "def f():\n    import random\n", "pure, but imports random"),
    ("provisioner.dialects.esf", "from pathlib import Path\n", "pure, but imports pathlib.Path"),
    (
        "provisioner.dialects.esf",
        "import datetime\nat = datetime.datetime.now(datetime.UTC)\n",
        "pure, but calls datetime.now",
    ),
    ("provisioner.model.user", "text = open('/etc/hosts')\n", "pure, but calls open"),
    ("broker.hall", "line = 1\n" * (floors.FILE_LINES_MAX + 1), "351 lines, 350 are allowed"),
    ("broker.hall", "def f():\n" + "    x = 1\n" * floors.FUNCTION_LINES_MAX, "f has 41 lines, 40 are allowed"),
)


@pytest.mark.parametrize(("module", "source", "told"), PLANTED)
def test_planted_breach_is_told(module: str, source: str, told: str) -> None:
    """A source that breaks one rule is told once, by module, line and rule."""
    (breach,) = floors.breaches({module: source})
    assert breach.startswith(f"{module}:")
    assert told in breach


ALLOWED = (
    ("provisioner.doors.cli", "def serve():\n    from provisioner.app import serve\n"),
    ("provisioner.doors.cli", "if TYPE_CHECKING:\n    from provisioner.config import Settings\n"),
    ("provisioner.fronts", "from broker.access import Login\nfrom provisioner.doors.control import Control\n"),
    ("provisioner.services.effects", "import time\nfrom provisioner.vault.keyring import KeyRing\n"),
    ("provisioner.model.ports", "from pathlib import PurePath\nfrom provisioner.model.request import Grant\n"),
    ("provisioner.store.journal", "from provisioner.store.disk import Disk\nimport os\n"),
    ("device_sim.fleet", "import random\nfrom provisioner.dialects.kura_payload import decode\n"),
    ("broker.hall", "line = 1\n" * floors.FILE_LINES_MAX),
    ("broker.hall", "def f():\n" + "    x = 1\n" * (floors.FUNCTION_LINES_MAX - 1)),
)


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_what_is_allowed_is_not_told(module: str, source: str) -> None:
    """What the rules permit, up to their very edge, is no breach."""
    assert floors.breaches({module: source}) == []
