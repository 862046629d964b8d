"""The measurement groups of our reports (PS3.16 TID 1410, 1411) and their statements: one function, one group.

Every number carries its method as a child: older viewers stumble over numbers without children. Everything a person
must read stands in a Comment too, because viewers drop concept names, and no viewer drops text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom
from highdicom import sr
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from dicom_node.encoding import codes
from dicom_node.encoding.contour import outline
from dicom_node.encoding.identity import InputKey, tracking_id, tracking_uid
from dicom_node.encoding.measurements import EarMeasurements
from dicom_node.encoding.numbers import Figure
from dicom_node.encoding.provenance import algorithm_version
from dicom_node.encoding.source_planes import SourcePlane
from dicom_node.errors import Reason
from inference.anatomy import EarSide, FluidSpace
from inference.findings import EarFindings, ModelIdentity, QualityCode, QualityFlag, Severity

WHOLE_EAR: Final = "The numbers are those of the whole ear, not of the outlined slice."

MeasurementGroup = (
    sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentReference:
    """One segment of the SEG that goes with the report, and the series that was segmented."""

    segmentation: pydicom.Dataset
    number: int
    source_series_uid: str


def volume_group(
    measured: EarMeasurements, space: FluidSpace, reference: SegmentReference, model: ModelIdentity, key: InputKey
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411: the volume of one fluid of one ear, tied to its segment by reference and by tracking UID."""
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(key, measured.side, space),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=reference.segmentation.SOPClassUID,
            sop_instance_uid=reference.segmentation.SOPInstanceUID,
            segment_number=reference.number,
            source_series=sr.SourceSeriesForSegmentation(reference.source_series_uid),
        ),
        finding_category=codes.BODY_SUBSTANCE,
        finding_type=codes.FLUID[space],
        finding_sites=[_inner_ear(measured.side)],
        algorithm_id=_algorithm(model, key),
        measurements=[volume_measurement(measured, space)],
    )


def contour_group(
    ear: EarFindings,
    measured: EarMeasurements,
    space: FluidSpace,
    plane: SourcePlane,
    mask: NDArray[np.bool_],
    model: ModelIdentity,
    key: InputKey,
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410: the outline of one fluid where it is largest; that of the total fluid carries the whole ear's numbers.

    It shares its tracking UID with the volume of the same fluid. OHIF shows nothing of a report with a group that has
    no coordinates, and takes groups of one tracking UID for one; so every group needs its contour. `mask` is (J, I)
    on `plane`.
    """
    of_the_ear = space is FluidSpace.TOTAL_FLUID_SPACE
    frames = None if plane.frame_number is None else [plane.frame_number]
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(key, ear.side, space),
        referenced_region=sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=outline(mask),
            source_image=sr.SourceImageForRegion(plane.sop_class_uid, plane.sop_instance_uid, frames),
        ),
        finding_category=codes.BODY_SUBSTANCE,
        finding_type=codes.FLUID[space],
        finding_sites=[_inner_ear(ear.side)],
        algorithm_id=_algorithm(model, key),
        measurements=_numbers(measured) if of_the_ear else None,
        qualitative_evaluations=ear_evaluations(ear) if of_the_ear else None,
    )
    if of_the_ear:
        for sentence in (*ear_sentences(measured), WHOLE_EAR):
            group[0].ContentSequence.append(comment(sentence))
    return group


def evaluations_container(
    evaluations: Sequence[sr.QualitativeEvaluation], comments: Sequence[str]
) -> sr.ContainerContentItem:
    """TID 1500 row 12, "Qualitative Evaluations": what holds for the examination, ending with the research-use text."""
    container = sr.ContainerContentItem(
        name=codes.QUALITATIVE_EVALUATIONS, relationship_type=sr.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = statements(evaluations, comments)
    return container


def findings_container(
    evaluations: Sequence[sr.QualitativeEvaluation], comments: Sequence[str]
) -> sr.ContainerContentItem:
    """TID 2000, section "Findings": the same statements in a report without measurements."""
    container = sr.ContainerContentItem(name=codes.FINDINGS, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = statements(evaluations, comments)
    return container


def statements(evaluations: Sequence[sr.QualitativeEvaluation], comments: Sequence[str]) -> sr.ContentSequence:
    """Coded statements, then distinct sentences, then the research-use text."""
    items = [item for evaluation in evaluations for item in evaluation]
    sentences = dict.fromkeys([*comments, codes.RESEARCH_USE_TEXT])
    return sr.ContentSequence([*items, *(comment(sentence) for sentence in sentences)])


def comment(sentence: str) -> sr.TextContentItem:
    """Free text of the report."""
    return sr.TextContentItem(name=codes.COMMENT, value=sentence, relationship_type=sr.RelationshipTypeValues.CONTAINS)


def ear_evaluations(ear: EarFindings) -> list[sr.QualitativeEvaluation]:
    """Whether one ear was evaluated, how good its images are for that, and every remark, coded."""
    status = codes.EAR_EVALUATED if ear.ratio else codes.EAR_NOT_EVALUATED
    return [
        _evaluation(codes.EAR_STATUS[ear.side], status),
        _evaluation(codes.IMAGE_QUALITY, image_quality(ear)),
        *quality_evaluations(ear.quality),
    ]


def ear_sentences(measured: EarMeasurements) -> list[str]:
    """One ear in one line, its 2D area ratios, its earlier value, and its remarks."""
    return list(dict.fromkeys(measured.sentences))


def status_evaluation(*, computed: bool) -> sr.QualitativeEvaluation:
    """Whether the study was computed at all."""
    return _evaluation(codes.RESULT_STATUS, codes.COMPUTED if computed else codes.NOT_COMPUTED)


def reason_evaluations(reasons: Sequence[Reason]) -> list[sr.QualitativeEvaluation]:
    """Each distinct reason for having no result, coded."""
    return [_evaluation(codes.NOT_COMPUTED_REASON, codes.reason_code(reason)) for reason in dict.fromkeys(reasons)]


def quality_evaluations(flags: Sequence[QualityFlag]) -> list[sr.QualitativeEvaluation]:
    """Each distinct quality remark, coded; its sentence goes into a comment."""
    distinct: Sequence[QualityCode] = list(dict.fromkeys(flag.code for flag in flags))
    return [_evaluation(codes.QUALITY_FLAG, codes.reason_code(code)) for code in distinct]


def image_quality(ear: EarFindings) -> Code:
    """CID 7036 from the flags: a STOP makes images useless for this purpose, a WARN limits them."""
    severities = {flag.severity for flag in ear.quality}
    if not ear.evaluated or Severity.STOP in severities:
        return codes.QUALITY_NON_DIAGNOSTIC
    return codes.QUALITY_LIMITED if Severity.WARN in severities else codes.QUALITY_GOOD


def volume_measurement(measured: EarMeasurements, space: FluidSpace, name: Code = codes.VOLUME) -> sr.Measurement:
    """TID 300: one volume in mm3 of an evaluated ear."""
    figure = measured.volume(space)
    if figure is None:
        raise ValueError(f"{measured.side} ear was not evaluated and has no volume")
    return sr.Measurement(name=name, value=figure.value, unit=codes.MM3, method=codes.PARTIAL_VOLUME_METHOD)


def _numbers(measured: EarMeasurements) -> list[sr.Measurement]:
    """Ratio, interval and volumes: the five lines that OHIF prints beside a contour."""
    if measured.ratio is None or measured.low is None or measured.high is None:
        raise ValueError(f"{measured.side} ear was not evaluated and has no numbers")
    return [
        _ratio_measurement(codes.EH_RATIO, measured.ratio),
        _ratio_measurement(codes.EH_RATIO_LOW, measured.low),
        _ratio_measurement(codes.EH_RATIO_HIGH, measured.high),
        *(volume_measurement(measured, space, name) for space, name in codes.FLUID_VOLUME.items()),
    ]


def _ratio_measurement(name: Code, ratio: Figure) -> sr.Measurement:
    return sr.Measurement(name=name, value=ratio.value, unit=codes.PERCENT, method=codes.VOLUME_RATIO_METHOD)


def _evaluation(name: Code, value: Code) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(name=sr.CodedConcept.from_code(name), value=sr.CodedConcept.from_code(value))


def _tracking(key: InputKey, side: EarSide, space: FluidSpace) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=tracking_uid(key, side, space), identifier=tracking_id(side, space))


def _inner_ear(side: EarSide) -> sr.FindingSite:
    return sr.FindingSite(anatomic_location=codes.INNER_EAR, laterality=codes.LATERALITY[side])


def _algorithm(model: ModelIdentity, key: InputKey) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=model.name,
        version=algorithm_version(model),
        family=codes.algorithm_family(model),
        parameters=[f"sha256={model.sha256}", f"input_digest={key.digest}"],
    )
