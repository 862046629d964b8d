# The node with the viewer that it serves, without Orthanc. Debian 12 and Python 3.11, as tested.
FROM python:3.11.13-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib

# libexpat1: linked by GDCM, the second decoder for compressed images. Fonts: East Asian names on the summary page.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libexpat1 fonts-droid-fallback fonts-nanum \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin hydrops \
    && install -d -o hydrops -m 0700 /var/lib/hydrops

WORKDIR /opt/hydrops
COPY pyproject.toml LICENSE README.md ./
COPY dicom_node dicom_node
COPY inference inference
RUN pip install --no-cache-dir .

# OHIF, in the version that the node pins; from another registry with --build-arg NPM_CONFIG_REGISTRY=...
ARG NPM_CONFIG_REGISTRY
RUN hydrops-node install-viewer

USER hydrops
VOLUME /var/lib/hydrops
EXPOSE 11112 8080 8081
CMD ["hydrops-node", "serve", "--config", "/etc/hydrops/config/compose.toml"]
