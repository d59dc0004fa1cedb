#!/usr/bin/env bash
# Installs what building or testing Caraway needs from Debian 12's packages.
#
#   install.sh build   for `make demo`: firmware, a C compiler, the linker
#   install.sh test    all of that, and everything `make test` starts
#
# Quick and silent when there is nothing to do. Rust itself is the caller's (rustup or the like).
set -euo pipefail

level=${1:-build}
cache=${CARAWAY_CACHE:-$HOME/.cache/caraway}

build_packages=(seabios binutils gcc libc6-dev)
test_packages=(
  qemu-system-x86                                    # the judge our guests are tried on, L1 of the lab
  qemu-utils                                         # makes and checks the disk images of tests
  iproute2                                           # the shaped link's addresses, and netem where there is one
  passt                                              # networks of users without rights
  spice-client-gtk gir1.2-spiceclientglib-2.0 python3-gi virt-viewer  # clients we did not write
  xvfb xauth xdotool imagemagick                     # a screen for the one that needs it
  python3 python3-venv                               # ryll's home
  chromium nodejs spice-html5                        # the browser console, and who looks at it
  g++                                                # libFuzzer
  libopus-dev pkg-config                             # the sound codec of caraway-spice
  libspice-server-dev                                # the reference server, to play recordings to
  libvpx-dev                                         # VP8 for caraway-spice
  gstreamer1.0-plugins-bad                           # H.264 for the GLib library; VP8 is among the good ones
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good # without them the GLib library has no sound channels
  qemu-guest-agent                                   # the agent that commands are tried on
  busybox-static kmod debootstrap e2fsprogs fdisk grub-common grub-pc-bin cpio xz-utils  # the lab's images
)

case $level in
build) packages=("${build_packages[@]}") ;;
test) packages=("${build_packages[@]}" "${test_packages[@]}") ;;
*)
  echo "usage: install.sh build|test" >&2
  exit 64
  ;;
esac

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

install_packages() {
  local wanted log
  mapfile -t wanted < <(missing "$@")
  [ ${#wanted[@]} -gt 0 ] || return 0
  echo "installing ${wanted[*]}" >&2
  log=$(mktemp)
  # shellcheck disable=SC2046  # words
  if ! apt_get install $(at_one_version "${wanted[@]}") >"$log" 2>&1; then
    # The lists may be older than the mirror: once more with fresh ones.
    apt_get update >>"$log" 2>&1 || true
    # shellcheck disable=SC2046  # words
    apt_get install $(at_one_version "${wanted[@]}") >>"$log" 2>&1 || {
      tail -n 20 "$log" >&2
      echo "apt could not install: ${wanted[*]} (whole log: $log)" >&2
      exit 1
    }
  fi
  rm -f "$log"
}

# The packages, and if one is qemu-system-x86, qemu-utils at the same version: one from a newer suite, which
# may be there already, breaks the emulator, and apt does not go back by itself.
at_one_version() {
  local version
  echo "$@"
  [[ " $* " == *" qemu-system-x86 "* ]] || return 0
  version=$(apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: *//p')
  if [ -n "$version" ] && [ "$version" != "(none)" ]; then echo "qemu-utils=$version"; fi
}

apt_get() {
  local verb=$1
  shift
  local options=(-q -y -o DPkg::Lock::Timeout=600)
  [ "$verb" = update ] || options+=(--no-install-recommends --allow-downgrades)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" "$verb" "$@"
}

# The SPICE proxy Kerbside and the client of its own checks, in a Python of their own. Of Kerbside's control
# plane only the messages are needed, so none of what it depends on. A half-made one is made again.
install_kerbside() {
  local home=$cache/venv ryll=0.3.0 kerbside=0.8.0
  local done=$home/ryll-$ryll-kerbside-$kerbside
  [ -e "$done" ] && return
  echo "installing ryll $ryll and kerbside $kerbside into $home" >&2
  /usr/bin/python3 -m venv --clear "$home"
  "$home/bin/python" -m pip install -q "ryll==$ryll" "kerbside-proxy==$kerbside" grpcio==1.84.0 protobuf==7.36.2
  "$home/bin/python" -m pip install -q --no-deps "kerbside==$kerbside"
  touch "$done"
}

# A cargo command of this version, unless there is one of any.
install_cargo_command() {
  local name=$1 version=$2
  local home=$cache/$name-$version
  command -v "$name" >/dev/null && return
  [ -x "$home/bin/$name" ] && return
  echo "building $name into $home" >&2
  # Building it costs more than running it.
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_TARGET_DIR="$cache/build/$name" cargo install -q --locked --root "$home" "$name@$version"
  rm -rf "$cache/build/$name"
}

install_packages "${packages[@]}"
if [ "$level" = test ]; then
  mkdir -p "$cache"
  install_kerbside
  install_cargo_command cargo-deny 0.20.2
fi
