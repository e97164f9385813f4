#!/bin/sh
# Makes the environment of the PyTorch peers at .peers/torch (about 1.2 GB; nothing of jaxcirc in it).
#   sh benchmarks/peers/make_torch.sh
# Safe to repeat: it installs only what is missing. pip, not uv: pip also finds a local CPU wheel.
set -eu
cd "$(dirname "$0")/../.."
env=.peers/torch
[ -x "$env/bin/python" ] || python3 -m venv "$env"
"$env/bin/python" -m pip install --quiet \
    torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0 numpy==2.4.6
"$env/bin/python" -c "import torch, transformers, accelerate, gguf; print('ready: torch', torch.__version__)"
