#!/bin/bash
# Accuracy at full width, on a GPU that is there for a few minutes at a time: dense, masked, uniformly narrow and Reconvene's
# networks, VGG-16 and ResNet-20 on all of CIFAR-10 for 160 epochs. Every call goes on where the last one stopped.
#
#     benchmarks/gpu_accuracy.sh FOLDER [RESULTS] [MINUTES]
#
# FOLDER has what the call before left there: checkpoints.part-*. RESULTS (FOLDER/gpu.jsonl) has the lines of networks that are
# done. The call takes MINUTES (8) in all. Both come out in $OUT if that is set, else where they were: bring them along to the
# next call, and make pages of the lines with
#
#     python benchmarks/accuracy.py --report-only --results RESULTS
#
# Data are found as `reconvene train` finds them (RECONVENE_DATA). What is carried over is at most CARRY_MIB of checkpoints (32),
# the smallest first, in parts of 15 MiB; a training that does not fit begins anew.
# To try it without a GPU: DEVICE=cpu WORKERS=2 WIDTH=0.25 PRESET=smoke SEEDS=0 benchmarks/gpu_accuracy.sh FOLDER
set -euo pipefail

FOLDER=${1:?name a folder for checkpoints}
RESULTS=${2:-$FOLDER/gpu.jsonl}
MINUTES=${3:-8}
PYTHON=${PYTHON:-python3}
RESERVE=${RESERVE:-45} # Seconds to begin and to pack.
TOP=$(cd "$(dirname "$0")/.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

mkdir -p "$FOLDER" "$WORK/runs" "${OUT:-$FOLDER}"
if ! "$PYTHON" -c 'import reconvene.driver.sweep' 2> /dev/null; then
    "$PYTHON" -m pip install --quiet --no-deps --no-build-isolation --no-index --target "$WORK/site" "$TOP"
    export PYTHONPATH="$WORK/site${PYTHONPATH:+:$PYTHONPATH}"
fi
if compgen -G "$FOLDER/checkpoints.part-*" > /dev/null; then
    cat "$FOLDER"/checkpoints.part-* | tar -x -C "$WORK/runs"
    find "$WORK/runs" -name '*.gz' -exec gunzip {} +
fi
if [ -e "$RESULTS" ]; then cp "$RESULTS" "$WORK/gpu.jsonl"; fi

left=$("$PYTHON" -c "print(max(0.2, $MINUTES - ($SECONDS + $RESERVE) / 60))")
status=0
"$PYTHON" "$TOP/benchmarks/accuracy.py" \
    --model vgg16 resnet20 --width "${WIDTH:-1}" --preset "${PRESET:-own}" \
    --methods dense upai:magnitude upai:synflow uniform \
    reconvene-channels-mean reconvene-density-mean reconvene-density-none \
    --sparsities 0.8 0.9 0.95 --seeds ${SEEDS:-0 1 2} \
    --device "${DEVICE:-cuda}" --bfloat16 --engine side-by-side --workers "${WORKERS:-8}" --threads "${THREADS:-4}" \
    --minutes "$left" --work "$WORK/runs" --results "$WORK/gpu.jsonl" || status=$?

# What was brought along is replaced when all of the new is there.
find "$WORK/runs" -name checkpoint.safetensors -print0 | xargs -0 -r -P 4 gzip -1
mkdir "$WORK/packed"
(
    cd "$WORK/runs"
    carried=0
    while read -r size name; do
        carried=$((carried + size))
        [ "$carried" -gt $((${CARRY_MIB:-32} * 1048576)) ] && break
        echo "$name"
    done < <(find . -name '*.gz' -printf '%s %P\n' | sort -n) > "$WORK/names"
    if [ -s "$WORK/names" ]; then tar -c -T "$WORK/names" | split -b 15M - "$WORK/packed/checkpoints.part-"; fi
    echo "$(find . -name '*.gz' | wc -l) trainings under way, $(wc -l < "$WORK/names") of them carried over" >&2
)
rm -f "${OUT:-$FOLDER}"/checkpoints.part-*
find "$WORK/packed" -type f -exec mv -t "${OUT:-$FOLDER}" {} +
if [ -e "$WORK/gpu.jsonl" ]; then
    if [ -n "${OUT:-}" ]; then cp "$WORK/gpu.jsonl" "$OUT/$(basename "$RESULTS")"; else cp "$WORK/gpu.jsonl" "$RESULTS"; fi
fi
exit "$status"
