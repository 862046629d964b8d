"""One process of each role on a state folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.cli.state_folder import listening_role, only_one, running_as
from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings, Settings
from dicom_node.settings.sections import NodeSettings

POSTGRESQL = {"HYDROPS_DATABASE_URL": "postgresql+psycopg://node@db/node"}


def loaded(folder: Path, worker_id: str, secrets: dict[str, str]) -> LoadedSettings:
    return LoadedSettings(settings=Settings(node=NodeSettings(worker_id=worker_id)), config_dir=folder, secrets=secrets)


def test_with_sqlite_one_node_receives_into_a_folder_whatever_its_name(tmp_path: Path) -> None:
    first, second = (listening_role(loaded(tmp_path, name, {})) for name in ("anna", "bert"))
    refused = pytest.raises(ConfigError, match="another process already runs")
    with only_one(tmp_path, first), refused, only_one(tmp_path, second):
        pytest.fail("two nodes on one folder")


def test_with_postgresql_one_node_of_each_name_receives_into_a_shared_folder(tmp_path: Path) -> None:
    first, second = (listening_role(loaded(tmp_path, name, POSTGRESQL)) for name in ("anna", "bert"))
    with only_one(tmp_path, first), only_one(tmp_path, second):
        assert running_as(tmp_path, first) is not None
        with pytest.raises(ConfigError), only_one(tmp_path, first):
            pytest.fail("two nodes of one name")
