# Part of scripts/realroot: mounts and unmounts the stack, by the kernel or by a mount program.
# shellcheck shell=bash disable=SC2154

daemon=''

# mount_stack MOUNTER UPPER WORK: MOUNTER is "kernel" or a program.
mount_stack() {
  local lower
  lower=$(IFS=:; echo "${layers[*]}")
  local options=lowerdir=$lower,upperdir=$2,workdir=$3
  if [ "$1" = kernel ]; then
    mount -t overlay overlay -o "$options" "$mnt"
    return
  fi
  # In the foreground, so that its exit status and its last words are seen.
  "$1" -f -o "$options" "$mnt" >>"$work/daemon.log" 2>&1 &
  daemon=$!
  for _ in $(seq 500); do
    ! mountpoint -q "$mnt" || return 0
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.02
  done
  cat "$work/daemon.log" >&2
  stop "$1 did not mount"
}

# Unmounts the stack and fails when its daemon does not end well within 20 s.
unmount_stack() {
  local status=0
  if ! umount "$mnt"; then
    say "FAILED: the mount is busy"
    umount -l "$mnt"
    failures=$((failures + 1))
  fi
  [ -n "$daemon" ] || return 0
  for _ in $(seq 1000); do
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.02
  done
  if kill -0 "$daemon" 2>/dev/null; then
    say "FAILED: the daemon outlived its mount"
    kill -9 "$daemon"
    failures=$((failures + 1))
  fi
  wait "$daemon" || status=$?
  daemon=''
  if [ $status -ne 0 ] || grep -q 'panicked at' "$work/daemon.log"; then
    tail -n 40 "$work/daemon.log"
    say "FAILED: the daemon ended with $status"
    failures=$((failures + 1))
  fi
}

# For the way out after a failure: nothing mounted, no daemon left.
end_mounts() {
  umount -l "$mnt/proc" 2>/dev/null || true
  umount -l "$mnt" 2>/dev/null || true
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    sleep 0.2
    kill -9 "$daemon" 2>/dev/null || true
  fi
}
