/**
 * OHIF for the node: its archive, and how a processed study is shown. The file that OHIF ships points at a public
 * demonstration server.
 *
 * A study with our segmentation opens in four panes: the MR cisternography in its own slices, coronal and sagittal,
 * each with the segments and close to the ears, and the report's outlines with their values. Any other study opens as
 * OHIF always does. Written for the OHIF release that is pinned in installation.py.
 */
(function () {
  const OURS = 'Hydrops Node';
  const SLICES = 'hydrops-slices';
  const REPORT = 'hydrops-report';
  const CORONAL = 'hydrops-coronal';
  const SAGITTAL = 'hydrops-sagittal';
  const MARGIN_MM = 8; // around the segments
  const TEXT_BELOW_PX = 8; // rows of the image between an ear and its text
  const TEXT_LEFT_PX = 75; // columns by which the text of the ear on the right of the screen moves inward

  // ---------------------------------------------------------------------------------------- what belongs to us

  const asList = value => (value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]);
  const isOurs = displaySet => displaySet.instance?.ManufacturerModelName === OURS;
  const newest = all => all.sort((a, b) => (a.SeriesDate + a.SeriesTime < b.SeriesDate + b.SeriesTime ? -1 : 1)).at(-1);
  const ourSegmentation = all => newest(all.filter(one => one.Modality === 'SEG' && isOurs(one)));
  const ourReport = all => newest(all.filter(one => one.isImagingMeasurementReport && isOurs(one)));

  /** Three panes ask for the same segmentation at once; OHIF would read it three times. */
  function loadOnce(displaySet) {
    const load = displaySet.load;
    let loading;
    displaySet.load = options => (loading ??= load(options));
  }

  /** What a display set is to the newest of our results: 'segmented' (the MRC), 'segmentation', 'report' or ''. */
  function roleInResult(displaySet, { displaySets = [] } = {}) {
    const segmentation = ourSegmentation(displaySets);
    if (!segmentation) return '';
    if (displaySet === segmentation) return 'segmentation';
    if (displaySet === ourReport(displaySets)) return 'report';
    return displaySet.displaySetInstanceUID === segmentation.referencedDisplaySetInstanceUID ? 'segmented' : '';
  }

  // ------------------------------------------------------------------------------------- the numbers of the report

  const codeOf = item => asList(item.ConceptNameCodeSequence)[0]?.CodeValue;

  /** Numbers of one report by side ('Right', 'Left') and code, with the decimal that was written. */
  function numbersOf(report) {
    const found = {};
    const measurements = asList(report.ContentSequence).find(item => codeOf(item) === '126010');
    for (const group of asList(measurements?.ContentSequence)) {
      const items = asList(group.ContentSequence);
      const side = items.find(item => codeOf(item) === '112039')?.TextValue.split(' ')[0];
      for (const item of items.filter(one => one.ValueType === 'NUM')) {
        const value = Number(asList(item.MeasuredValueSequence)[0].NumericValue).toFixed(1);
        found[side] = { ...found[side], [codeOf(item)]: value };
      }
    }
    return found;
  }

  /** The lines of one ear as label and value, the way OHIF keeps what it prints beside an outline. */
  const linesOf = (side, ear) => [
    { label: `${side} ear, EH ratio`, value: `${ear.EHVR} %` },
    { label: '95 % interval', value: `${ear.EHVRLOW} to ${ear.EHVRHIGH} %` },
    { label: 'Total fluid', value: `${ear.TFSVOL} mm3` },
    { label: 'Endolymph', value: `${ear.ELVOL} mm3` },
    { label: 'Research use only', value: 'not for diagnosis' },
  ];

  /** Our text instead of OHIF's, which has two decimals and no side; it stands where it hides neither ear. */
  function tidyMeasurement(services, { measurement, SeriesInstanceUID }) {
    const { displaySetService } = services;
    const report = displaySetService.getDisplaySetsForSeries(SeriesInstanceUID)[0];
    if (!report || !isOurs(report) || !measurement.coords?.length) return measurement;
    const side = measurement.TrackingIdentifier.split(' ')[0];
    const ear = numbersOf(report.instance)[side];
    const wholeEar = measurement.TrackingIdentifier.endsWith('total fluid space');
    measurement.labels = wholeEar && ear ? linesOf(side, ear) : [];
    const image = displaySetService
      .getActiveDisplaySets()
      .flatMap(one => one.images ?? [])
      .find(one => one.SOPInstanceUID === measurement.coords[0].ReferencedSOPSequence?.ReferencedSOPInstanceUID);
    if (image?.imageId) {
      const points = measurement.coords[0].GraphicData;
      const columns = points.filter((_, n) => n % 2 === 0);
      const rows = points.filter((_, n) => n % 2 === 1);
      const inward = Math.min(...columns) > image.Columns / 2 ? TEXT_LEFT_PX : 0;
      const corner = [Math.max(...columns) - inward, Math.max(...rows) + TEXT_BELOW_PX];
      const worldPosition = window.cornerstone.utilities.imageToWorldCoords(image.imageId, corner);
      if (worldPosition) measurement.textBox = { hasMoved: true, worldPosition };
    }
    return measurement;
  }

  // ------------------------------------------------------------------------------------------- close to the ears

  const plus = (a, b, factor = 1) => a.map((value, axis) => value + factor * b[axis]);
  const dot = (a, b) => a.reduce((sum, value, axis) => sum + value * b[axis], 0);
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const mean = points => points.reduce((sum, point) => plus(sum, point), [0, 0, 0]).map(value => value / points.length);

  /** Patient coordinates (LPS, mm) of a segmentation's voxels by segment number. */
  function pointsOf(segmentation) {
    const { cache, utilities } = window.cornerstone;
    const points = {};
    for (const imageId of segmentation.representationData.Labelmap?.imageIds ?? []) {
      const image = cache.getImage(imageId);
      const labels = image?.voxelManager.getScalarData() ?? [];
      for (let index = 0; index < labels.length; index++) {
        if (labels[index] === 0) continue;
        const pixel = [(index % image.columns) + 0.5, Math.floor(index / image.columns) + 0.5];
        (points[labels[index]] ??= []).push(utilities.imageToWorldCoords(image.referencedImageId, pixel));
      }
    }
    return points;
  }

  /** The true center of each segment: OHIF 3.13 mixes the ears up when segments overlap, and its arrows jump there. */
  function correctCenters(segmentation, points) {
    for (const [number, voxels] of Object.entries(points)) {
      const stats = segmentation.segments[number]?.cachedStats;
      if (stats?.center) stats.center = { ...stats.center, world: mean(voxels) };
    }
  }

  /** Turn a pane to these points: its plane through their middle (unless it shows one image), all of them in sight. */
  function lookAt(viewport, points, { keepPlane }) {
    const { focalPoint, position, viewPlaneNormal, viewUp } = viewport.getCamera();
    const across = cross(viewUp, viewPlaneNormal);
    const extent = axis => {
      const along = points.map(point => dot(point, axis));
      return [Math.min(...along), Math.max(...along)];
    };
    const [left, right] = extent(across);
    const [low, high] = extent(viewUp);
    let move = plus(mean(points), focalPoint, -1);
    move = plus(move, across, (left + right) / 2 - dot(plus(focalPoint, move), across));
    move = plus(move, viewUp, (low + high) / 2 - dot(plus(focalPoint, move), viewUp));
    if (keepPlane) move = plus(move, viewPlaneNormal, -dot(move, viewPlaneNormal));
    const { clientWidth, clientHeight } = viewport.element;
    const half = Math.max((high - low) / 2, ((right - left) / 2) * (clientHeight / clientWidth)) + MARGIN_MM;
    viewport.setCamera({
      focalPoint: plus(focalPoint, move),
      position: plus(position, move),
      parallelScale: half,
    });
    viewport.render();
  }

  /** Once a pane of ours has its overlay, show the ears: both, or in the sagittal pane the first one. */
  function lookAtEars(services, { alreadyDone, pointsById }, viewportId) {
    const { cornerstoneViewportService, segmentationService } = services;
    const segmentation = segmentationService
      .getSegmentations()
      .find(one => Object.values(one.segments).some(segment => /^(Right|Left) total fluid space$/.test(segment.label)));
    const viewport = cornerstoneViewportService.getCornerstoneViewport(viewportId);
    if (!segmentation || !viewport || alreadyDone.has(viewportId)) return;
    const points = pointsById.get(segmentation.segmentationId) ?? pointsOf(segmentation);
    if (Object.keys(points).length) pointsById.set(segmentation.segmentationId, points); // twenty million voxels
    correctCenters(segmentation, points);
    const right = Object.values(segmentation.segments).find(segment => segment.label.startsWith('Right'));
    const first = right ?? Object.values(segmentation.segments)[0];
    const shown = viewportId === SAGITTAL ? points[first.segmentIndex] : Object.values(points).flat();
    if (!shown?.length) return;
    alreadyDone.add(viewportId);
    lookAt(viewport, shown, { keepPlane: viewportId === REPORT });
  }

  // ----------------------------------------------------------------------------------------------------- the panes

  const withRole = role => ({
    seriesMatchingRules: [{ attribute: 'roleInResult', constraint: { equals: { value: role } }, required: true }],
  });

  const pane = (viewportId, orientation) => ({
    viewportOptions: {
      viewportId,
      viewportType: 'volume',
      orientation,
      toolGroupId: 'mpr',
      syncGroups: [{ type: 'voi', id: 'hydrops', source: true, target: true }],
    },
    displaySets: [{ id: 'segmented' }, { id: 'segmentation' }],
  });

  const reportPane = {
    viewportOptions: { viewportId: REPORT, viewportType: 'stack', toolGroupId: 'default', allowUnmatchedView: true },
    displaySets: [{ id: 'report' }],
  };

  const protocol = {
    id: 'hydrops',
    name: 'Hydrops',
    protocolMatchingRules: [
      { attribute: 'hasHydropsResult', constraint: { equals: { value: true } }, weight: 100, required: true },
    ],
    toolGroupIds: ['mpr', 'default'],
    numberOfPriorsReferenced: -1,
    displaySetSelectors: {
      segmented: withRole('segmented'),
      segmentation: withRole('segmentation'),
      report: withRole('report'),
    },
    stages: [
      {
        name: 'Hydrops',
        viewportStructure: { layoutType: 'grid', properties: { rows: 2, columns: 2 } },
        viewports: [pane(SLICES, 'acquisition'), reportPane, pane(CORONAL, 'coronal'), pane(SAGITTAL, 'sagittal')],
      },
    ],
  };

  /**
   * Both ears' ratios in the corner of the slices: the outline of each ear stands on a slice of its own. They are of the
   * study that the pane shows: display sets of a patient's other studies are active too once somebody opens them.
   */
  const cornerTexts = services => {
    const line = (id, textOf) => ({
      id,
      condition: ({ viewportId }) => viewportId === SLICES,
      contentF: ({ displaySet }) => {
        const active = services.displaySetService.getActiveDisplaySets();
        const report = ourReport(active.filter(one => one.StudyInstanceUID === displaySet?.StudyInstanceUID));
        return textOf(report ? numbersOf(report.instance) : {});
      },
    });
    const ratio = side => ears =>
      ears[side] && `${side} EH ${ears[side].EHVR} % (${ears[side].EHVRLOW} to ${ears[side].EHVRHIGH})`;
    return [
      line('HydropsRight', ratio('Right')),
      line('HydropsLeft', ratio('Left')),
      line('HydropsResearch', () => 'Research use only'),
    ];
  };

  // ------------------------------------------------------------------------------------------------ to OHIF's hooks

  /** All panes draw in one WebGL context, as on a phone. OHIF makes seven before the first image, each a wait. */
  function drawInOneContext() {
    window.cornerstone.getConfiguration().rendering.webGlContextCount = 1;
  }

  const extension = {
    id: 'hydrops-node',
    preRegistration({ servicesManager }) {
      drawInOneContext();
      const { hangingProtocolService, customizationService } = servicesManager.services;
      hangingProtocolService.addCustomAttribute('roleInResult', 'Role in our result', roleInResult);
      hangingProtocolService.addCustomAttribute(
        'hasHydropsResult',
        'Has our segmentation',
        (_study, { displaySets = [] } = {}) => Boolean(ourSegmentation(displaySets))
      );
      customizationService.setCustomizations({ 'ohif.tours': { $set: [] } }, 'global');
    },
    onModeEnter({ servicesManager }) {
      const { services } = servicesManager;
      const { cornerstoneViewportService, customizationService, displaySetService } = services;
      customizationService.setCustomizations(
        {
          onBeforeSRAddMeasurement: { $set: found => tidyMeasurement(services, found) },
          'viewportOverlay.topRight': { $set: cornerTexts(services) },
          'panelSegmentation.disableEditing': { $set: true },
        },
        'mode'
      );
      displaySetService.subscribe(displaySetService.EVENTS.DISPLAY_SETS_ADDED, ({ displaySetsAdded }) =>
        displaySetsAdded.filter(one => one.Modality === 'SEG' && isOurs(one)).forEach(loadOnce)
      );
      const known = { alreadyDone: new Set(), pointsById: new Map() };
      cornerstoneViewportService.subscribe(cornerstoneViewportService.EVENTS.VIEWPORT_DATA_CHANGED, () =>
        [SLICES, REPORT, CORONAL, SAGITTAL].forEach(viewportId => lookAtEars(services, known, viewportId))
      );
    },
    getHangingProtocolModule: () => [{ name: protocol.id, protocol }],
  };

  window.config = {
    routerBasename: '/',
    extensions: [extension],
    modes: [],
    modesConfiguration: {
      '@ohif/mode-longitudinal': {
        hangingProtocol: { $set: ['hydrops', 'default'] },
        // The segments' names and colors stand in the panel on the right.
        routes: { 0: { layoutInstance: { props: { rightPanelClosed: { $set: false } } } } },
      },
    },
    showStudyList: true,
    investigationalUseDialog: { option: 'never' },
    disableConfirmationPrompts: true,
    measurementTrackingMode: 'none',
    defaultDataSourceName: 'archive',
    dataSources: [
      {
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
        sourceName: 'archive',
        configuration: {
          friendlyName: 'Archive',
          name: 'archive',
          qidoRoot: '/dicom-web',
          wadoRoot: '/dicom-web',
          wadoUriRoot: '/dicom-web',
          imageRendering: 'wadors',
          thumbnailRendering: 'rendered', // by the archive: 'wadors' draws each in the browser, ahead of the panes
          qidoSupportsIncludeField: true,
          supportsFuzzyMatching: false,
          supportsWildcard: true,
          singlepart: 'bulkdata,video',
          bulkDataURI: { enabled: true, relativeResolution: 'studies' },
          omitQuotationForMultipartRequest: true,
        },
      },
    ],
  };
})();
