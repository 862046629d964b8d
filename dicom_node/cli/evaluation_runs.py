"""What `hydrops-node evaluate` measures: phantom studies through the node's own pipeline, and a site's labeled cases.

Each study is one job that needs nothing but its description, so jobs run in processes of their own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import RejectedStudy, UnusableInput
from dicom_node.labeled_cases import has_cisternogram, input_sets, read_case
from inference.anatomy import EarSide
from inference.cases import CaseError, InputSet
from inference.evaluation.cohort import ROLES, ear_case, patient
from inference.evaluation.scores import EarScore, blank, judge, score_case

if TYPE_CHECKING:
    from inference.cases import EarCase
    from inference.findings import EarFluid, StudyFindings
    from inference.geometry import Volume
    from inference.phantom import PhantomStudy
    from inference.segmentation import FluidSegmenter


@dataclass(frozen=True, kw_only=True)
class PhantomJob:
    """One patient of the distribution, measured once with each input set by `method`.

    `method` is what `processing.model` may be: "shipped", "threshold" or a model folder.
    """

    seed: int
    input_sets: tuple[InputSet, ...]
    method: str

    def run(self) -> list[EarScore]:
        """Both ears' scores with each input set."""
        from inference.phantom import make_study
        from inference.phantom.study import draw_patient

        study = make_study(patient(self.seed, self.input_sets))
        person = draw_patient(study.options)
        scores = []
        for inputs in self.input_sets:
            findings, refusals, seconds = measure(_volumes(study, inputs), segmenter(self.method))
            for side in study.truth.ears:
                case = ear_case(study, side, inputs, patient=person)
                if findings is None:
                    scores.append(blank(case, refusals=refusals, seconds=seconds))
                else:
                    scores.append(judge(findings.ears[side], case, seconds=seconds))
        return scores


@dataclass(frozen=True, kw_only=True)
class FolderJob:
    """The labeled ears in `folder`, segmented by `method` with each of these input sets that they have.

    Cases are named by their place below `root`: two sites may both have a patient 01.
    """

    root: Path
    folder: Path
    input_sets: tuple[InputSet, ...]
    method: str

    def run(self) -> list[EarScore]:
        """Scores of every labeled ear."""
        there = input_sets(self.folder)
        usable = bool(there) and has_cisternogram(self.folder)
        wanted = [one for one in there if one in self.input_sets] if usable else [None]  # None: reading says what lacks
        name = self.folder.relative_to(self.root).as_posix()
        return [
            replace(score_case(case, segmenter(self.method)), case=name)
            for one in wanted
            for case in read_case(self.folder, inputs=one)
        ]


Job = PhantomJob | FolderJob


@cache
def segmenter(method: str) -> FluidSegmenter:
    """The method of that name as the node would wire it, made once per process.

    Raises
    ------
    ConfigError
        If it names no folder with a model.
    """
    from dicom_node.cli.wiring import load_settings, make_segmenter

    loaded = load_settings(None)
    processing = replace(loaded.settings.processing, model=method)
    return make_segmenter(replace(loaded, settings=replace(loaded.settings, processing=processing)))


def measure(
    volumes: Mapping[SeriesRole, Volume], method: FluidSegmenter
) -> tuple[StudyFindings | None, tuple[str, ...], float]:
    """Findings, or None with the codes of the refusals, and the seconds it took."""
    from dicom_node.pipeline import PipelineOptions, StepTimer, measure_study

    options = PipelineOptions()
    began = time.perf_counter()
    try:
        findings = measure_study(volumes, segmenter=method, options=options, step=StepTimer(time.perf_counter))
    except RejectedStudy as rejected:
        codes = tuple(dict.fromkeys(refusal.reason.value for refusal in rejected.refusals))
        return None, codes, time.perf_counter() - began
    return findings, (), time.perf_counter() - began


def run_jobs(jobs: Sequence[Job], *, workers: int, on_done: Callable[[], None]) -> list[EarScore]:
    """Scores of all jobs in their order, `workers` processes at a time with one thread each.

    Raises
    ------
    UnusableInput
        If a case cannot be used; the message names the file.
    """
    results: dict[int, list[EarScore]] = {}
    try:
        for number, scores in _finished(jobs, workers):
            results[number] = scores
            on_done()
    except CaseError as error:
        raise UnusableInput(str(error)) from error
    return [score for number in sorted(results) for score in results[number]]


def _finished(jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, list[EarScore]]]:
    if workers == 1:
        yield from ((number, job.run()) for number, job in enumerate(jobs))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads' locks
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        numbers = {pool.submit(job.run): number for number, job in enumerate(jobs)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()


def _one_thread() -> None:
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _volumes(study: PhantomStudy, inputs: InputSet) -> dict[SeriesRole, Volume]:
    return {SeriesRole(role): study.volumes[role] for role in ROLES[inputs]}


def look_again(score: EarScore, method: str, cases: Path | None) -> tuple[EarCase, EarFluid]:
    """The images, truth and fluid of an ear that was measured before, for a picture: everything is seeded or stored.

    `cases` is the folder of labeled cases; None if the ear is a phantom's.

    Raises
    ------
    UnusableInput
        If the ear gets no number any more.
    """
    inputs = InputSet(str(score.tags["input_set"]))
    if cases is not None:
        ears = read_case(cases / score.case, inputs=inputs)
        case = next(one for one in ears if one.images.roi.side is score.side)
        (fluid,) = segmenter(method).segment([case.images])
        return case, fluid
    from inference.phantom import make_study

    study = make_study(patient(int(score.tags["seed"]), (inputs,)))
    findings, _, _ = measure(_volumes(study, inputs), segmenter(method))
    found = None if findings is None else findings.ears[score.side].fluid
    if found is None:
        raise UnusableInput(f"{score.case}: measured before, refused now; was the model changed meanwhile?")
    return ear_case(study, score.side, inputs), found


def phantom_pair(seed: int, side: EarSide) -> tuple[EarCase, EarCase]:
    """One phantom's ear with PPI and PEI, and the same with the cisternogram alone (HYDROPS is zero)."""
    from inference.phantom import make_study

    study = make_study(patient(seed, (InputSet.PPI_PEI,)))
    whole = ear_case(study, side, InputSet.PPI_PEI)
    hydrops = whole.images.hydrops
    silent = replace(hydrops, array=np.zeros_like(hydrops.array))
    return whole, replace(whole, images=replace(whole.images, hydrops=silent, ppi=None))
