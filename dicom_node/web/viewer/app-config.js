/**
 * OHIF for the node: its archive, and how a processed study is shown. The file that OHIF ships points at a public
 * demonstration server.
 *
 * A study with our segmentation opens in four panes: the MR cisternography in its own slices, coronal and sagittal,
 * each with the segments, and the report's outlines with their values. Any other study opens as OHIF always does.
 */
(function () {
  const OURS = 'Hydrops Node';
  const SHARED = { source: true, target: true };

  const isOurs = displaySet => displaySet.instance?.ManufacturerModelName === OURS;
  const ourSegmentation = all => all.find(one => one.Modality === 'SEG' && isOurs(one));
  const ourReport = all => all.find(one => one.Modality === 'SR' && isOurs(one) && one.isImagingMeasurementReport);

  /** What a display set is to the newest of our results: 'segmented' (the MRC), 'segmentation', 'report' or ''. */
  function roleInResult(displaySet, { displaySets = [] } = {}) {
    const segmentation = ourSegmentation(displaySets);
    if (!segmentation) return '';
    if (displaySet === segmentation) return 'segmentation';
    if (displaySet === ourReport(displaySets)) return 'report';
    return displaySet.displaySetInstanceUID === segmentation.referencedDisplaySetInstanceUID ? 'segmented' : '';
  }

  const withRole = role => ({
    seriesMatchingRules: [{ attribute: 'roleInResult', constraint: { equals: { value: role } }, required: true }],
  });

  const pane = (viewportId, orientation) => ({
    viewportOptions: {
      viewportId,
      viewportType: 'volume',
      orientation,
      toolGroupId: 'mpr',
      syncGroups: [{ type: 'voi', id: 'hydrops', ...SHARED }],
    },
    displaySets: [{ id: 'segmented' }, { id: 'segmentation' }],
  });

  const protocol = {
    id: 'hydrops',
    name: 'Hydrops',
    protocolMatchingRules: [
      { attribute: 'hasHydropsResult', constraint: { equals: { value: true } }, weight: 100, required: true },
    ],
    toolGroupIds: ['mpr', 'default'],
    imageLoadStrategy: 'interleaveCenter',
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
        viewports: [
          pane('hydrops-slices', 'acquisition'),
          {
            viewportOptions: { viewportId: 'hydrops-report', viewportType: 'stack', toolGroupId: 'default' },
            displaySets: [{ id: 'report' }],
          },
          pane('hydrops-coronal', 'coronal'),
          pane('hydrops-sagittal', 'sagittal'),
        ],
      },
    ],
  };

  const extension = {
    id: 'hydrops-node',
    preRegistration({ servicesManager }) {
      window.hn = servicesManager;
      const { hangingProtocolService } = servicesManager.services;
      hangingProtocolService.addCustomAttribute('roleInResult', 'Role in our result', roleInResult);
      hangingProtocolService.addCustomAttribute(
        'hasHydropsResult',
        'Has our segmentation',
        (_study, { displaySets = [] } = {}) => Boolean(ourSegmentation(displaySets))
      );
    },
    getHangingProtocolModule: () => [{ name: protocol.id, protocol }],
  };

  window.config = {
    routerBasename: '/',
    extensions: [extension],
    modes: [],
    modesConfiguration: { '@ohif/mode-longitudinal': { hangingProtocol: { $set: ['hydrops', 'default'] } } },
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
          thumbnailRendering: 'wadors',
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
