# Part of scripts/suites: scratch space, images of file systems, stacks mounted by plyfs or the kernel.
# shellcheck shell=bash
#
# The script that sources this sets `suite` (its name) first and has $0 and "$@" untouched.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PATH=$PATH:/usr/sbin:/sbin
daemons=() images=() failures=0 keep=no

# shellcheck disable=SC2154 # every suite names itself
say() { printf '%s %s: %s\n' "$(date +%T)" "$suite" "$*" >&2; }
stop() { say "$*"; exit 2; }
fail() { say "FAILED: $*"; failures=$((failures + 1)); }

# The comment at the head of the suite is its help.
help() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0; }

# Everything happens in a mount namespace of its own: whatever goes wrong, no mount is left.
enter_private() {
  [ "$(id -u)" = 0 ] || stop "needs root: it mounts file systems"
  [ -c /dev/fuse ] || modprobe fuse 2>/dev/null || stop "needs /dev/fuse"
  if [ "${PLYFS_SUITE_INNER:-}" != "$suite" ]; then
    PLYFS_SUITE_INNER=$suite exec unshare --mount --propagation private -- "$0" "$@"
  fi
}

# Leaves a program of the workspace in the variable named: need_built VARIABLE PACKAGE NAME.
need_built() {
  [ -z "${!1:-}" ] || return 0
  say "building $3"
  (cd "$top" && cargo build --quiet --release -p "$2" --bin "$3") || stop "$3 does not build"
  printf -v "$1" %s "$(cd "$top" && realpath -m "${CARGO_TARGET_DIR:-target}")/release/$3"
}

# Installs Debian packages for programs that are missing: need_programs PROGRAM:PACKAGE…
need_programs() {
  local need packages=()
  for need in "$@"; do
    type -P "${need%%:*}" >/dev/null || packages+=("${need#*:}")
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  type -P apt-get >/dev/null || stop "needs ${packages[*]}"
  say "installing ${packages[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "${packages[@]}"; } >/dev/null || stop "cannot install ${packages[*]}"
}

# Makes the scratch directory $work, which goes when the suite ends.
make_scratch() {
  work=$(mktemp -d "${PLYFS_TEST_DIR:-/var/tmp}/plyfs-$suite.XXXXXX")
  # Other users work in the mounts too.
  chmod 755 "$work"
  trap clean_up EXIT
  trap 'exit 2' INT TERM HUP
}

clean_up() {
  local status=$? pid image mount
  [ $status = 0 ] || [ $failures -gt 0 ] || say "ended early, with status $status"
  cd /
  for mount in "$work"/*/mnt; do umount -l "$mount" 2>/dev/null || true; done
  for pid in ${daemons[@]+"${daemons[@]}"}; do kill -9 "$pid" 2>/dev/null || true; done
  for image in ${images[@]+"${images[@]}"}; do umount -l "$image" 2>/dev/null || true; done
  if [ "$keep" = yes ]; then
    say "kept: $work"
  else
    rm -rf --one-file-system "$work"
  fi
  exit $status
}

# make_image KIND MEGABYTES: a new file system on a loop device, mounted at $image.
make_image() {
  image=$work/$1-image
  truncate -s "$2M" "$image.file"
  case $1 in
    ext4) mkfs.ext4 -q -F "$image.file" ;;
    xfs | btrfs) "mkfs.$1" -q -f "$image.file" ;;
    *) stop "no such kind of image: $1" ;;
  esac
  mkdir "$image"
  mount -o loop "$image.file" "$image" || stop "cannot mount $1 from an image"
  images+=("$image")
}

drop_image() {
  umount "$1" || { fail "$1 is busy"; umount -l "$1"; }
  rm "$1.file"
}

# make_stack DIR: an empty layer, upper, workdir and mountpoint.
make_stack() { mkdir -p "$1"/{lower,upper,work,mnt}; chmod 755 "$1"/*; }

# mount_stack MOUNTER DIR [OPTIONS]: MOUNTER is "kernel" or a mount program.
mount_stack() {
  local options=lowerdir=$2/lower,upperdir=$2/upper,workdir=$2/work${3:+,$3}
  if [ "$1" = kernel ]; then
    mount -t overlay overlay -o "$options" "$2/mnt"
    return
  fi
  # In the foreground, so that its exit status and its last words are seen.
  "$1" -f -o "$options" "$2/mnt" >>"$2/daemon.log" 2>&1 &
  daemons+=($!)
  echo $! >"$2/daemon.pid"
  for _ in $(seq 1000); do
    ! mountpoint -q "$2/mnt" || return 0
    kill -0 $! 2>/dev/null || break
    sleep 0.02
  done
  cat "$2/daemon.log" >&2
  stop "$1 did not mount"
}

# unmount_stack DIR: fails the suite when the mount is busy or its daemon does not end well.
unmount_stack() {
  local pid status=0
  umount "$1/mnt" || { fail "$1/mnt is busy"; umount -l "$1/mnt"; }
  [ -e "$1/daemon.pid" ] || return 0
  pid=$(cat "$1/daemon.pid")
  rm "$1/daemon.pid"
  for _ in $(seq 1000); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.02
  done
  if kill -0 "$pid" 2>/dev/null; then
    fail "the daemon outlived its mount"
    kill -9 "$pid"
  fi
  wait "$pid" || status=$?
  if [ $status -ne 0 ] || grep -q 'panicked at' "$1/daemon.log"; then
    tail -n 40 "$1/daemon.log" >&2
    fail "the daemon ended with $status"
  fi
}

finish() {
  [ $failures = 0 ] || { say "$failures failures"; exit 1; }
  say "all passed"
}
