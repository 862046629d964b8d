"""Our configuration of OHIF, run by Node.js on services that stand in for OHIF's."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from patience import STUDY_S

from dicom_node.web.viewer.origin import OUR_FILES

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")

CORNER = """
const report = (study, date, ratio) => ({
  StudyInstanceUID: study, SeriesDate: date, SeriesTime: '', Modality: 'SR', isImagingMeasurementReport: true,
  instance: { ManufacturerModelName: 'Hydrops Node', ContentSequence: [{
    ConceptNameCodeSequence: [{ CodeValue: '126010' }],
    ContentSequence: [{ ContentSequence: [
      { ConceptNameCodeSequence: [{ CodeValue: '112039' }], TextValue: 'Left total fluid space' },
      ...[['EHVR', ratio], ['EHVRLOW', ratio - 1], ['EHVRHIGH', ratio + 1]].map(([code, value]) => ({
        ValueType: 'NUM', ConceptNameCodeSequence: [{ CodeValue: code }],
        MeasuredValueSequence: [{ NumericValue: value }],
      })),
    ] }],
  }] },
});
const active = [report('1.2.3', '20240101', 27.1), report('1.2.4', '20260101', 80)];
const taken = {};
const services = {
  customizationService: { setCustomizations: found => Object.assign(taken, found) },
  displaySetService: { EVENTS: {}, subscribe() {}, getActiveDisplaySets: () => active },
  cornerstoneViewportService: { EVENTS: {}, subscribe() {} },
};
window.config.extensions[0].onModeEnter({ servicesManager: { services } });
const left = taken['viewportOverlay.topRight'].$set.find(one => one.id === 'HydropsLeft');
const shown = ['1.2.3', '1.2.4', '1.2.5'].map(StudyInstanceUID => left.contentF({ displaySet: { StudyInstanceUID } }));
console.log(JSON.stringify([...shown, left.contentF({})].map(text => text ?? '')));
"""


def test_the_corner_names_the_numbers_of_the_study_that_the_pane_shows() -> None:
    program = f"const window = {{}};\n{OUR_FILES['app-config.js'].read_text(encoding='utf-8')}\n{CORNER}"
    told = subprocess.run(["node"], input=program, capture_output=True, text=True, timeout=STUDY_S, check=True)
    assert json.loads(told.stdout) == [
        "Left EH 27.1 % (26.1 to 28.1)",
        "Left EH 80.0 % (79.0 to 81.0)",
        "",
        "",
    ]
