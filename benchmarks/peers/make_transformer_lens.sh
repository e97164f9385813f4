#!/bin/sh
# Makes the environment of the TransformerLens peer at .peers/transformer_lens (about 1.5 GB; nothing of jaxcirc in it).
#   sh benchmarks/peers/make_transformer_lens.sh
# Safe to repeat: it installs only what is missing. pip, not uv: pip also finds a local CPU wheel.
set -eu
cd "$(dirname "$0")/../.."
env=.peers/transformer_lens
[ -x "$env/bin/python" ] || python3 -m venv "$env"
"$env/bin/python" -m pip install --quiet torch==2.13.0 transformer-lens==3.9.0
"$env/bin/python" -c "import torch, importlib.metadata as m; print('ready: transformer-lens', m.version('transformer-lens'), 'torch', torch.__version__)"
