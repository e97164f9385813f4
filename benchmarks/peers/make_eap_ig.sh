#!/bin/sh
# Makes the environment of the EAP-IG peer: TransformerLens's (see make_transformer_lens.sh) with EAP-IG's own source beside it.
#   sh benchmarks/peers/make_eap_ig.sh            # EAP_IG=/path/to/a/clone uses that instead of GitHub
# Safe to repeat.
set -eu
cd "$(dirname "$0")/../.."
sh benchmarks/peers/make_transformer_lens.sh
.peers/transformer_lens/bin/python -m pip install --quiet matplotlib==3.10.8
source=.peers/eap_ig
[ -d "$source" ] || git clone --quiet "${EAP_IG:-https://github.com/hannamw/EAP-IG}" "$source"
git -C "$source" checkout --quiet 795f560
echo "ready: EAP-IG $(git -C "$source" rev-parse --short HEAD)"
