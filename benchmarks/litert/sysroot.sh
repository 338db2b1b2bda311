#!/bin/sh
# sysroot.sh FOLDER: Python 3.11 for AArch64 with LiteRT and numpy, for QEMU's user mode. Needs apt-get with the package lists of
# Debian 12, whose Python that is, and pip; everything stays in FOLDER (234 MB), nothing is installed on this machine.
set -e
mkdir -p "${1:?give the folder to make}"
folder=$(cd "$1" && pwd)
site=$folder/site
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/root" "$folder/wheels" "$site"
: > "$folder/apt/status"
apt() {
    apt-get -qq -o Acquire::Languages=none -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
        -o APT::Sandbox::User= -o Dir::State="$folder/apt" \
        -o Dir::State::status="$folder/apt/status" -o Dir::State::lists="$folder/apt/lists" \
        -o Dir::Cache="$folder/apt/cache" -o APT::Install-Recommends=false "$@"
}
apt update
# Into an empty machine, so that everything they need is downloaded too.
apt --yes --download-only install python3.11-minimal libpython3.11-stdlib libstdc++6
for package in "$folder"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
python3 -m pip download --quiet --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --python-version 3.11 -d "$folder/wheels" ai-edge-litert==2.3.0 numpy==2.4.6
for wheel in "$folder"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$site"; done
