# Part of scripts/suites/programs: the file system stressors of stress-ng, which check what they do.
# shellcheck shell=bash disable=SC2154

# Those for every day.
short_stressors=(access chmod chown copy-file dentry dir fallocate filename flock fpunch getdent hdd io
  link locka lockofd mknod open rename seek sendfile symlink sync-file touch utime xattr mmap)
# Not of the class, though they work on files.
further_stressors=(seek sendfile splice mmap mmaphuge metamix msync readahead aio fsize)

# stress DIR STRESSOR SECONDS: its words are in $dir/stress.log.
stress() {
  mkdir -p "$1/temp"
  timeout $(($3 * 4 + 60)) stress-ng --temp-path "$1/temp" --verify --timeout "$3" --metrics-brief \
    "--$2" 2 >"$dir/stress.log" 2>&1
}

part_stress() {
  need_programs stress-ng:stress-ng
  local stressors=("${short_stressors[@]}") seconds=1 stressor
  if [ "$size" = full ]; then
    read -r -a stressors <<<"$(stress-ng --class 'filesystem?' 2>&1 | sed 's/^class.*: //')"
    stressors+=("${further_stressors[@]}")
    seconds=5
  fi
  new_stack stress
  begin
  make_stack "$work/stress-kernel"
  mount_stack kernel "$work/stress-kernel"
  for stressor in "${stressors[@]}"; do
    # bind-mount and binderfs mount file systems of their own.
    case $stressor in bind-mount | binderfs) continue ;; esac
    ! stress "$mnt" "$stressor" "$seconds" || continue
    cp "$dir/stress.log" "$dir/stress-plyfs.log"
    if stress "$work/stress-kernel/mnt" "$stressor" "$seconds"; then
      fail "stress-ng --$stressor: $(grep -m5 -iE 'fail|error' "$dir/stress-plyfs.log")"
    else
      say "stress-ng --$stressor fails on the kernel's overlayfs too"
    fi
  done
  unmount_stack "$work/stress-kernel"
  rm -rf "$mnt/temp"
  expect "what the stressors leave" '' "$(ls -A "$mnt")"
  end
}
