# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Sourced by tools/demo and tests/run from the root of the repository: what both need installed,
# and how both build. Everything comes from Debian's own packages.

BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config acpica-tools python3
    protobuf-c-compiler protobuf-compiler libprotobuf-c-dev liblz4-dev libxxhash-dev libssl-dev
    libjansson-dev libzstd-dev zlib1g-dev liburing-dev libcmocka-dev nbdkit-plugin-dev"
TEST_PACKAGES="spin mandoc binutils openssl qemu-utils nbdkit libnbd-bin"
LAB_PACKAGES="qemu-system-x86 qemu-utils busybox-static squashfs-tools cpio kmod iproute2 e2fsprogs
    sqlite3"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "need root to install packages: run as root, or install sudo" >&2
        return 1
    fi
}

is_installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

# install_packages NAME...: installs those that are missing; one dot a package.
install_packages() {
    command -v apt-get >/dev/null || {
        echo "no apt-get here; needed are (by their Debian names): $*" >&2
        return 0
    }
    missing=
    for package in "$@"; do
        is_installed "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "installing:$missing"
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words
    if as_root apt-get update -q >"$log" 2>&1 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            -o Dpkg::Use-Pty=0 $missing >>"$log" 2>&1; then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        echo "could not install all packages" >&2
        return 1
    fi
}

# A kernel index is needed to find the lab's kernel; a fresh container has none.
refresh_package_index() {
    apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 ||
        as_root apt-get update -q >/dev/null 2>&1
}

# build_preset NAME: configures once, builds, and says one line when all is well. A warning that
# some compiler has come up with must not stop whoever wants to see Ferry run.
build_preset() {
    log=$(mktemp)
    started=$(date +%s)
    if { [ -f "build/$1/build.ninja" ] ||
        cmake --preset "$1" -DWARNINGS_AS_ERRORS=OFF >"$log" 2>&1; } &&
        cmake --build "build/$1" >>"$log" 2>&1; then
        rm -f "$log"
        echo "built preset '$1' in $(($(date +%s) - started)) s"
    else
        grep -E -A 10 'error|FAILED|CMake Error' "$log" | head -n 60 >&2
        rm -f "$log"
        echo "could not build preset '$1'" >&2
        return 1
    fi
}
