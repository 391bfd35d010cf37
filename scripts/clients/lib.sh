# Part of scripts/clients: the sandbox the clients run in, the steps, and what they share.
# shellcheck shell=bash disable=SC2034
#
# A script sources this file, calls `enter "$@"` first, then `step NAME FUNCTION...` for each step and
# `finish` last. Inside, everything happens in new mount and process namespaces: whatever a client
# leaves behind (monitors, shims, FUSE daemons, mounts) dies with them, and nothing of the machine
# is changed.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
self=$(realpath "$0")
name=${0##*/}
passed=0 failed=0
# How long one step may take, in seconds: a client that waits for a daemon waits for ever.
limit=${STEP_LIMIT:-300}
user=plyfsuser uid=4321

stop() { echo "$name: $*" >&2; exit 2; }

usage() { sed -n '2,/^# TIMES/s/^# \{0,1\}//p' "$self"; exit "${1:-0}"; }

# enter [--core] [--log FILE] MOUNTER [CACHE_DIR]: checks the arguments, starts the script again in
# its namespaces, and sets:
#   mounter   the program, as the clients find it: called fuse-overlayfs, first in PATH
#   scratch   a directory of this run, removed at the end
#   core      "yes" where only the core is asked for
enter() {
  core=no log=''
  local original=("$@")
  while [ $# -gt 0 ]; do
    case $1 in
      --core) core=yes ;;
      --log) log=$(realpath -m "${2:?--log needs a file}"); shift ;;
      -h | --help) usage ;;
      -*) usage 2 >&2 ;;
      *) break ;;
    esac
    shift
  done
  [ $# -ge 1 ] || usage 2 >&2
  program=$(command -v "$1") || stop "no program $1"
  program=$(realpath "$program")
  export PLYFS_CACHE=${2:-${PLYFS_CACHE:-/var/cache/plyfs-test}}
  [ "$(id -u)" = 0 ] || stop "needs root: namespaces with every user id"
  if [ -z "${CLIENTS_INNER:-}" ]; then
    "$here/make-image" >&2 || stop "no images"
    # Short, as sockets of containers lie below it: with 15 characters more podman waited 20 seconds
    # for the end of each container of an ordinary user.
    scratch=$(mktemp -d "${PLYFS_TEST_DIR:-/var/tmp}/plyfs.XXXXXX")
    chmod 755 "$scratch"
    local status=0
    CLIENTS_INNER=$scratch unshare --mount --pid --fork --kill-child --mount-proc \
      -- "$self" "${original[@]}" || status=$?
    rm -rf --one-file-system "$scratch"
    leave_cgroups
    exit $status
  fi
  scratch=$CLIENTS_INNER
  isolate
  fuse_mounts >"$scratch/mounts"
  mkdir "$scratch/bin"
  # Its own place may be what the link of this name hides.
  cp "$program" "$scratch/mounter"
  program=$scratch/mounter
  mounter=$scratch/bin/fuse-overlayfs
  if [ -n "$log" ]; then
    printf '#!/bin/bash\nprintf "%%q " "$@" >>%q\necho >>%q\nexec -a fuse-overlayfs %q "$@"\n' \
      "$log" "$log" "$program" >"$mounter"
    chmod 755 "$mounter"
    : >>"$log"
    chmod 666 "$log"
  else
    ln -s "$program" "$mounter"
  fi
  export PATH=$scratch/bin:$PATH:/usr/sbin:/sbin
  # mount(8) looks for its helpers in its own PATH.
  mount -t overlay -o "lowerdir=$scratch/bin:/usr/bin" overlay /usr/bin ||
    stop "kernel overlayfs is needed to show MOUNTER in /usr/bin"
  export TMPDIR=$scratch/tmp HOME=$scratch/home XDG_RUNTIME_DIR=$scratch/run
  mkdir -m 1777 "$TMPDIR"
  mkdir -m 755 "$HOME"
  mkdir -m 700 "$XDG_RUNTIME_DIR"
  unset CLIENTS_INNER XDG_CONFIG_HOME XDG_DATA_HOME DOCKER_HOST CONTAINER_HOST
  images=$PLYFS_CACHE/clients
}

# Hides what the clients must not use or touch, and shows what a usual machine has.
isolate() {
  # As on a machine with systemd: rootless podman warns and loses mounts otherwise.
  mount --make-rshared /
  mount --make-rslave /sys
  # crun refuses version 1 with a version 2 tree that has controllers.
  ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
  # State and locks of every client are apart from those of other runs.
  local dir
  for dir in /run /dev/shm; do mount -t tmpfs -o mode=755 tmpfs $dir; done
  chmod 1777 /dev/shm
  mkdir -m 1777 /run/lock
  # Devices that every user of a usual machine may open.
  device fuse 10 229
  mkdir -p /dev/net
  device net/tun 10 200
}

# device NAME MAJOR MINOR: /dev/NAME for everybody.
device() {
  mknod -m 666 "$scratch/dev-${1##*/}" c "$2" "$3"
  [ ! -e "/dev/$1" ] || mount --bind "$scratch/dev-${1##*/}" "/dev/$1"
}

# Ids for root and for an ordinary user to give away, in copies of the files that only we see.
add_user() {
  local file
  for file in passwd group subuid subgid; do
    cp "/etc/$file" "$scratch/$file"
    chmod 644 "$scratch/$file"
  done
  echo "$user:x:$uid:$uid::$HOME:/bin/bash" >>"$scratch/passwd"
  echo "$user:x:$uid:" >>"$scratch/group"
  printf '%s:2000000:65536\n' "$user" root | tee "$scratch/subuid" >"$scratch/subgid"
  for file in passwd group subuid subgid; do mount --bind "$scratch/$file" "/etc/$file"; done
  chown "$uid:$uid" "$HOME" "$XDG_RUNTIME_DIR"
}

# as_user COMMAND...: as that user, without anything of root.
as_user() {
  setpriv --reuid=$uid --regid=$uid --clear-groups --inh-caps=-all \
    env USER=$user LOGNAME=$user "$@"
}

# Empty groups that the clients leave in the trees of version 1; those in use refuse to go.
leave_cgroups() {
  local dir
  for dir in /sys/fs/cgroup/*/{libpod_parent,docker,plyfs-clients}; do
    [ ! -d "$dir" ] || find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}

# Configuration of podman, buildah and skopeo: our mount program, no systemd, no limits that this
# process could not raise. Storage lies in DIR.
storage_conf() {
  local dir=$1 conf=$1/conf
  mkdir -p "$conf"
  cat >"$conf/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$dir/storage"
runroot = "$dir/runroot"
rootless_storage_path = "$dir/storage"
[storage.options.overlay]
mount_program = "$mounter"
END
  cat >"$conf/containers.conf" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
END
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$conf/policy.json"
  echo 'unqualified-search-registries = []' >"$conf/registries.conf"
  # No option of podman names the policy: it is where it always is, but only here.
  if [ -z "${policy_mounted:-}" ]; then
    mkdir -p /etc/containers
    mount -t tmpfs tmpfs /etc/containers
    cp "$conf/policy.json" /etc/containers/
    policy_mounted=yes
  fi
  export CONTAINERS_STORAGE_CONF=$conf/storage.conf CONTAINERS_CONF=$conf/containers.conf
  export CONTAINERS_REGISTRIES_CONF=$conf/registries.conf
}

# A registry on a free port of 127.0.0.1; sets $registry.
start_registry() {
  local port try
  for try in 1 2 3 4 5; do
    port=$((20000 + (RANDOM + try) % 20000))
    cat >"$scratch/registry.yml" <<END
version: 0.1
log: {accesslog: {disabled: true}, level: error}
storage: {filesystem: {rootdirectory: $scratch/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$port"}
END
    docker-registry serve "$scratch/registry.yml" >"$scratch/registry.log" 2>&1 &
    if wait_for "a registry" 10 listens "$port" && kill -0 $! 2>/dev/null; then
      registry=127.0.0.1:$port
      return 0
    fi
  done
  cat "$scratch/registry.log"
  return 1
}

listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_for WHAT SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local what=$1 until=$((SECONDS + $2)) -
  shift 2
  set +x
  while ! "$@"; do
    if [ $SECONDS -ge "$until" ]; then
      echo "waited in vain for $what"
      return 1
    fi
    sleep 0.1
  done
}

# Processes of the mounter that still live in this sandbox.
daemons() {
  local exe found=0
  for exe in /proc/[0-9]*/exe; do
    if [ "$(readlink "$exe" 2>/dev/null)" = "$program" ]; then found=$((found + 1)); fi
  done
  echo $found
}

fuse_mounts() { findmnt -rno TARGET -t fuse.fuse-overlayfs,fuse.plyfs,fuse || true; }

# Mounts of this run that are still there; those of others on the machine were there before.
mounts_left() { fuse_mounts | grep -vxFf "$scratch/mounts" || true; }

no_daemons() { [ "$(daemons)" = 0 ]; }

# fingerprint DIR...: everything a reader of these directories can see: a line for each object, and
# one for all contents and attributes together.
fingerprint() {
  find "$@" -printf '%p %y %m %U:%G %s %n %T@ %l\n' | sort
  tar "${tar_exactly[@]}" -C / -c "${@#/}" | sha256sum
}

# Arguments of tar for an archive that says everything about its files but when they were read.
tar_exactly=(--sort=name --numeric-owner --format=pax "--pax-option=delete=atime,delete=ctime"
  --xattrs "--xattrs-include=*" --acls)

# same A B [WHAT]: fails and shows both unless they are equal.
same() {
  if [ "$1" != "$2" ]; then
    echo "${3:-it} differs (- wanted, + got):"
    diff -u0 <(echo "$1") <(echo "$2") | tail -n +3
    return 1
  fi
}

# step NAME FUNCTION [ARGUMENT...]: one line, and the last lines of what went wrong.
step() {
  local what=$1 out=$scratch/step.log status=0 child dog begin=$SECONDS
  shift
  case " ${ONLY:-$what} " in *" $what "*) ;; *) return 0 ;; esac
  (set -euxo pipefail; "$@") >"$out" 2>&1 </dev/null &
  child=$!
  (sleep "$limit"; echo "no end after $limit s" >>"$out"; kill -KILL "$child") >/dev/null 2>&1 &
  dog=$!
  wait "$child" 2>/dev/null || status=$?
  kill "$dog" 2>/dev/null || true
  wait "$dog" 2>/dev/null || true
  if [ $status = 0 ]; then
    echo "ok $what${TIMES:+ ($((SECONDS - begin)) s)}"
    passed=$((passed + 1))
  else
    echo "FAIL $what (status $status)"
    tail -n 15 "$out" | cut -c1-400 | sed 's/^/    /'
    failed=$((failed + 1))
  fi
}

finish() {
  echo "passed=$passed failed=$failed"
  [ -z "${TIMES:-}" ] || echo "seconds=$SECONDS"
  [ $failed = 0 ] && [ $passed -gt 0 ]
  exit $?
}
