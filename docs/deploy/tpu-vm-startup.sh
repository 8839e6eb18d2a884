#!/usr/bin/env bash
# Start-up script of every worker of a TPU VM slice: a Ray node that joins the cluster of the head.
set -euo pipefail

attribute() {
    curl --fail --silent --show-error --header 'Metadata-Flavor: Google' \
        "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

# Given when the slice was created, with --metadata: where the head's GCS listens, and the cluster's token.
RAY_HEAD=$(attribute ray-head)
RAY_AUTH_TOKEN=$(attribute ray-auth-token)
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
# Less than the 30 seconds that a Spot VM has, so that Ray's own deadline is one that can be kept.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=25

# The Python minor version and the Ray version of the driver; what your function imports; no sliceform.
python3.11 -m venv /opt/fleet
/opt/fleet/bin/pip install --quiet 'ray[default]==2.60.0' 'jax[tpu]'

# Ray finds the chips in /dev, and asks the metadata server for the slice's name, its type and topology, and the worker id.
install -m 600 /dev/null /etc/systemd/system/ray.service
cat > /etc/systemd/system/ray.service <<UNIT
[Unit]
Description=Ray node of a TPU slice
After=network-online.target

[Service]
Environment=RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_AUTH_TOKEN=$RAY_AUTH_TOKEN
Environment=RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=$RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
ExecStart=/opt/fleet/bin/ray start --address=$RAY_HEAD --block --disable-usage-stats
KillMode=mixed
TimeoutStopSec=30
Restart=always
RestartSec=10
LimitNOFILE=65536
UNIT
systemctl daemon-reload
systemctl restart ray.service
