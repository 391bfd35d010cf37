# Part of scripts/clients: the steps of podman and podman-rootless.
# shellcheck shell=bash disable=SC2154,SC2016
#
# A script that sources this defines run_podman, which calls podman as the user in question.

rootless=no

podman_steps() {
  work=$TMPDIR/work
  mkdir -m 1777 "$work"
  cp -r "$here/image" "$work/image"
  chmod -R a+rX "$work/image"
  step version mounter_is_known
  step load load_base
  step run run_once
  # What differs for an ordinary user is ids and privileges, which images do not show.
  local images_too=yes
  [ "$core $rootless" != 'yes yes' ] || images_too=no
  if [ $images_too = yes ]; then
    step build build_image
    step check-built check_built localhost/built
    step layers layers_of_built
  fi
  step diff diff_and_commit
  step check-committed check_committed
  step parallel many_at_once
  if [ $images_too = yes ]; then
    step save-load save_and_load
    step registry push_and_pull
  fi
  step lifecycle one_container
  step restart start_again_and_again
  step rm rm_leaves_nothing
  step overlay-volume overlay_volume
  step home-volume volume_of_home
  step userns other_user_namespace
  if [ "$core" = no ]; then
    step apt apt_from_the_mirror
    step setuid setuid_and_capabilities
    step cp copy_in_and_out
    step export export_container
    step read-only read_only_container
    step image-mount mount_the_image
    step build-again build_with_cache
    step build-squash build_squashed
    step build-mounts build_with_mounts
    step deep deep_image
    step kill kill_containers
    step nested-tools programs_that_stress
  fi
  step image-unchanged base_is_unchanged
  step nothing-left nothing_is_left
}

# In a container without network, from an image.
in_container() { run_podman run --rm --network=none "$@"; }

storage_dir() { run_podman info --format '{{.Store.GraphRoot}}'; }

# The directory of a container's upper, or of an image's top layer.
upper_of() { run_podman inspect --format '{{.GraphDriver.Data.UpperDir}}' "$1"; }

mounter_is_known() {
  run_podman info --format json | jq -re '.store.graphOptions["overlay.mount_program"]' >"$work/info"
  cat "$work/info"
  grep -q "^ *\"Executable\": \"$mounter\"" "$work/info"
  grep -q '"Version": ".*version' "$work/info"
}

load_base() {
  run_podman pull -q "oci:$images/base:latest" >"$work/id"
  run_podman tag "$(cat "$work/id")" localhost/base:latest
  run_podman images
  base_fingerprint >"$work/base.before"
}

# The layers of the base image as they lie in the storage.
base_fingerprint() {
  local dirs
  mapfile -t dirs < <(run_podman image inspect localhost/base:latest |
    jq -r '.[0].GraphDriver.Data | .UpperDir, (.LowerDir // "" | split(":")[])' | grep .)
  [ ${#dirs[@]} -ge 2 ]
  fingerprint "${dirs[@]}"
}

run_once() {
  same root "$(in_container localhost/base id -un)"
  in_container localhost/base sh -c 'test ! -e /usr/bin/tcc && test "$(stat -c %h /opt/mid/one)" = 3 &&
    test "$(stat -c %a /tmp)" = 1777 && echo x >/etc/motd && cat /etc/motd'
  in_container localhost/base bash -c '! ls -a /usr/bin /usr/share/man | grep -F .wh.'
}

build_image() {
  # A layer for each step compares two mounts each time, which takes most of the time.
  local layers=true
  if [ "$core" = yes ]; then layers=false; fi
  run_podman build --layers=$layers --network=none --isolation=oci -t localhost/built "$work/image"
}

check_built() {
  in_container -v "$work/image/check:/check:ro" "$1" /check
}

# What the layers hold, apart from what a mount shows: deletions are written down, the hard links
# of one layer are links in it, and nothing of the mounter's own is in any archive.
layers_of_built() {
  local dir=$work/saved manifest layer names
  mkdir -m 777 "$dir"
  run_podman save -q --format oci-dir -o "$dir/oci" localhost/built
  manifest=$(jq -r '.manifests[0].digest' "$dir/oci/index.json" | cut -d: -f2)
  jq -r '.layers[].digest' "$dir/oci/blobs/sha256/$manifest" | cut -d: -f2 >"$dir/list"
  while read -r layer; do
    tar -tvf "$dir/oci/blobs/sha256/$layer"
    (zcat -f "$dir/oci/blobs/sha256/$layer" | grep -aoE \
      'SCHILY.xattr.(trusted.overlay|user.overlay|user.fuseoverlayfs|user.containers)[a-z_.]*' || true) |
      sed 's/^/XATTR /'
  done <"$dir/list" >"$dir/names"
  for names in opt/mid/.wh.large opt/mid/.wh.soft opt/mid/.wh.dir opt/mid/deep/a/.wh.b \
    'opt/mid/(.wh.gone|gone/.wh.deep)' opt/mid/many/.wh.299; do
    grep -qE " (\./)?($names)\$" "$dir/names" || { echo "no whiteout $names"; return 1; }
  done
  if grep '^XATTR' "$dir/names" | sort | uniq -c | grep .; then
    echo "attributes of the mounter are in the layers"
    return 1
  fi
  grep -E '^h.* opt/mid/(m|n) link to' "$dir/names"
  rm -rf "$dir"
}

# want_line LINE FILE: the file has the line, which is shown if not.
want_line() { grep -Fqx -- "$1" "$2" || { echo "no line '$1' in:"; head -50 "$2"; return 1; }; }

diff_and_commit() {
  local id
  id=$(run_podman run -d --network=none localhost/base sh -c '
    rm -rf /opt/mid/deep /opt/mid/large && mkdir /opt/mid/deep && ls -la /opt/mid/deep &&
    echo new >/opt/mid/new && chmod 700 /opt/mid/sticky && echo more >>/opt/mid/one &&
    rm /opt/mid/many/1?? && mv /opt/mid/owned /opt/mid/replace/owned && sync && sleep 1000')
  wait_for "the container's work" 60 run_podman exec "$id" test -e /opt/mid/replace/owned
  run_podman diff "$id" | sort >"$work/diff"
  for line in 'A /opt/mid/new' 'D /opt/mid/large' 'C /opt/mid/sticky' 'C /opt/mid/one' \
    'D /opt/mid/many/100' 'D /opt/mid/owned' 'A /opt/mid/replace/owned' 'C /opt/mid/deep' \
    'D /opt/mid/deep/a'; do
    want_line "$line" "$work/diff"
  done
  # Nothing else, but other names of a changed hard link where they stay one file.
  if grep -E '/opt/mid/(soft|fifo|setgid|capable)' "$work/diff"; then return 1; fi
  run_podman commit -q "$id" localhost/committed
  run_podman rm -f -t 0 "$id"
}

check_committed() {
  in_container localhost/committed bash -ec '
    ls -la /opt/mid /opt/mid/deep /opt/mid/many >/dev/null
    for gone in /opt/mid/large /opt/mid/deep/a /opt/mid/many/100 /opt/mid/owned; do
      if test -e $gone; then echo "$gone is back"; exit 1; fi
    done
    test "$(ls -A /opt/mid/deep)" = ""
    test "$(cat /opt/mid/one)" = "$(printf "one\nmore")"
    test "$(stat -c %a /opt/mid/sticky)" = 700
    test "$(stat -c %u:%g:%a /opt/mid/replace/owned)" = 1234:4321:640
    test "$(ls /opt/mid/many | wc -l)" = 200'
}

many_at_once() {
  local i ids=() id
  for i in 1 2 3 4 5 6; do
    in_container localhost/base sh -c "echo $i >/opt/mid/one && rm -rf /opt/mid/deep &&
      cp -a /usr/share/perl5 /opt/mid/copy 2>/dev/null || cp -a /etc /opt/mid/copy
      sleep 0.5; cat /opt/mid/one; cat /opt/mid/dir/file" >"$work/parallel.$i" &
    ids+=($!)
  done
  for id in "${ids[@]}"; do wait "$id"; done
  for i in 1 2 3 4 5 6; do same "$i file" "$(tr '\n' ' ' <"$work/parallel.$i" | sed 's/ $//')"; done
}

# Everything in an image as a reader of it sees it.
image_print() {
  # /etc and /run are where podman puts files of its own.
  in_container "$1" bash -c 'cd / && tar --one-file-system "$@" \
    -c bin boot home lib* media mnt opt root sbin srv tmp usr var | sha256sum' tar "${tar_exactly[@]}"
}

save_and_load() {
  local before after
  before=$(image_print localhost/built)
  run_podman save -q -o "$work/built.tar" localhost/built
  run_podman rmi -f localhost/built >/dev/null
  run_podman load -q -i "$work/built.tar"
  rm -f "$work/built.tar"
  after=$(image_print localhost/built)
  same "$before" "$after" "the image"
  check_built localhost/built
}

push_and_pull() {
  local before
  before=$(run_podman image inspect --format '{{.Id}}' localhost/built)
  start_registry
  run_podman push -q --tls-verify=false localhost/built "$registry/built:1"
  run_podman rmi -f localhost/built >/dev/null
  run_podman pull -q --tls-verify=false "$registry/built:1"
  run_podman tag "$registry/built:1" localhost/built
  same "$before" "$(run_podman image inspect --format '{{.Id}}' localhost/built)" "the image's id"
  check_built localhost/built
}

one_container() {
  run_podman create --name one --network=none localhost/base sleep 1000
  run_podman start one
  run_podman exec one sh -c 'echo kept >/root/kept && rm -r /opt/mid/dir && touch /opt/mid/two'
  same kept "$(run_podman exec one cat /root/kept)"
  # The client reads the upper beside the mount.
  local upper
  upper=$(upper_of one)
  test -f "$upper/root/kept"
  run_podman ps --size --format '{{.Names}} {{.Size}}'
  run_podman stop -t 0 one
  run_podman start one
  run_podman exec one sh -c 'test ! -e /opt/mid/dir && cat /root/kept'
}

start_again_and_again() {
  local i
  for i in 1 2 3 4 5; do
    run_podman stop -t 0 one >/dev/null
    run_podman start one >/dev/null
    same kept "$(run_podman exec one cat /root/kept)"
  done
  for i in 1 2 3; do run_podman restart -t 0 one >/dev/null; done
  run_podman exec one sh -c 'echo again >/root/again'
}

rm_leaves_nothing() {
  local upper
  upper=$(upper_of one)
  test -d "$upper"
  run_podman rm -f -t 0 one
  test ! -e "$upper"
  test ! -e "$(dirname "$upper")"
  run_podman ps -a --format '{{.Names}}' | (! grep -x one)
}

overlay_volume() {
  local dir=$work/volume
  mkdir -m 777 "$dir"
  echo host >"$dir/file"
  mkdir -m 777 "$dir/a:b"
  echo colon >"$dir/a:b/file"
  same 'host
changed' "$(in_container -v "$dir:/v:O" localhost/base sh -c \
    'cat /v/file && echo changed >/v/file && rm -r "/v/a:b" && mkdir "/v/a:b" && cat /v/file')"
  same host "$(cat "$dir/file")"
  same colon "$(cat "$dir/a:b/file")"
}

# The storage, with the upper of the volume and its mountpoint in it, lies below the volume itself.
volume_of_home() {
  local dir
  dir=$(dirname "$(storage_dir)")
  in_container -v "$dir:/v:O" localhost/base sh -c \
    'ls /v >/dev/null && test -d /v/storage/overlay && echo x >/v/new && cat /v/new'
  test ! -e "$dir/new"
}

other_user_namespace() {
  local id upper
  if [ "$rootless" = yes ]; then
    same "$uid" "$(in_container --userns=keep-id localhost/base id -u)"
    in_container --userns=keep-id localhost/base sh -c 'echo mine >/tmp/mine && cat /tmp/mine &&
      test "$(stat -c %u /tmp/mine)" = "$(id -u)" && test "$(stat -c %u /etc/passwd)" = 0 &&
      test "$(stat -c %u:%g /opt/mid/owned)" = 1234:4321'
  fi
  id=$(run_podman run -d --network=none --uidmap=0:10000:5000 --gidmap=0:20000:5000 localhost/base \
    sh -c 'echo new >/opt/mid/new && mkdir /opt/mid/newdir && chown 5:6 /opt/mid/newdir && sleep 1000')
  wait_for "the container's work" 30 run_podman exec "$id" sh -c \
    'test "$(stat -c %u:%g /opt/mid/newdir)" = 5:6'
  same '0:0' "$(run_podman exec "$id" stat -c %u:%g /opt/mid/new)"
  run_podman rm -f -t 0 "$id"
}

apt_from_the_mirror() {
  run_podman run --rm --network=host -v /etc/resolv.conf:/etc/resolv.conf:ro localhost/base bash -ec '
    apt-get -qq update && apt-get -qq install -y --no-install-recommends tree >/dev/null &&
    tree -L 1 /opt/mid && apt-get -qq purge -y tree >/dev/null && test ! -e /usr/bin/tree'
}

setuid_and_capabilities() {
  in_container --user 1000 localhost/built bash -ec '
    test "$(id -u)" = 1000
    # A copy of cat with the setuid and setgid bits reads what only root may.
    ! cat /etc/shadow 2>/dev/null
    /opt/mid/newsuid /etc/shadow | grep -q worker
    ! echo x >/etc/motd'
  in_container --cap-drop=all --security-opt=no-new-privileges --user 1000 localhost/built \
    bash -c '! /opt/mid/newsuid /etc/shadow 2>/dev/null'
}

copy_in_and_out() {
  local id
  id=$(run_podman create --network=none localhost/base true)
  run_podman cp "$work/image" "$id:/opt/mid/image"
  run_podman cp "$id:/opt/mid/image/check" "$work/check.back"
  cmp "$work/image/check" "$work/check.back"
  run_podman cp "$id:/opt/mid/dir" - | tar -t | grep -qx dir/three
  run_podman rm "$id"
}

export_container() {
  local id
  id=$(run_podman create --network=none localhost/built true)
  run_podman export -o "$work/export.tar" "$id"
  run_podman rm "$id"
  tar -tvf "$work/export.tar" >"$work/exported"
  rm -f "$work/export.tar"
  grep -qE '^h.* opt/mid/(m|n) link to' "$work/exported"
  grep -qE '^-rwsr-sr-x .* opt/mid/newsuid$' "$work/exported"
  if grep -E 'opt/mid/large|\.wh\.' "$work/exported"; then return 1; fi
}

read_only_container() {
  in_container --read-only localhost/base sh -c '! echo x >/etc/motd && echo x >/tmp/x'
  in_container --read-only --read-only-tmpfs=false localhost/base sh -c '! echo x >/tmp/x'
}

mount_the_image() {
  if [ "$rootless" = yes ]; then
    run_podman unshare sh -ec 'm=$(podman image mount localhost/built) &&
      test "$(stat -f -c %T "$m")" = fuseblk && test ! -e "$m/opt/mid/large" && ! touch "$m/x" 2>/dev/null
      podman image unmount localhost/built'
  else
    local m
    m=$(run_podman image mount localhost/built)
    same fuseblk "$(stat -f -c %T "$m")" "the type that statfs tells"
    test ! -e "$m/opt/mid/large"
    ! touch "$m/x"
    run_podman image unmount localhost/built
  fi
}

build_with_cache() {
  run_podman build --network=none --isolation=oci -q -t localhost/built1 "$work/image"
  run_podman build --network=none --isolation=oci -t localhost/built2 "$work/image" >"$work/again" 2>&1
  cat "$work/again"
  [ "$(grep -c 'Using cache' "$work/again")" -ge 10 ]
  same "$(run_podman image inspect --format '{{.Id}}' localhost/built1)" \
    "$(run_podman image inspect --format '{{.Id}}' localhost/built2)"
}

build_squashed() {
  run_podman build --network=none --isolation=oci --no-cache --squash -t localhost/squashed "$work/image"
  check_built localhost/squashed
  run_podman build --network=none --isolation=oci --no-cache --layers=false -t localhost/flat "$work/image"
  check_built localhost/flat
}

build_with_mounts() {
  mkdir -p "$work/mounts"
  echo secret >"$work/mounts/secret"
  echo data >"$work/mounts/data"
  cat >"$work/mounts/Containerfile" <<'END'
FROM localhost/base:latest AS first
RUN mkdir /made && echo made >/made/file && chmod 700 /made && rm -rf /opt/mid/many
FROM localhost/base:latest
RUN --mount=type=bind,target=/context cat /context/data
RUN --mount=type=bind,from=first,source=/made,target=/made test "$(cat /made/file)" = made
RUN --mount=type=cache,target=/var/cache/mine echo x >/var/cache/mine/x
RUN --mount=type=tmpfs,target=/scratch echo x >/scratch/x
COPY --from=first /made /copied
COPY --from=first --chown=5:6 /opt/mid /copied-mid
RUN test "$(cat /copied/file)" = made && test ! -e /copied-mid/many && test "$(stat -c %u:%g /copied-mid/one)" = 5:6
END
  run_podman build --network=none --isolation=oci -t localhost/mounts "$work/mounts"
}

deep_image() {
  run_podman pull -q "oci:$images/deep:latest" >"$work/deep"
  run_podman tag "$(cat "$work/deep")" localhost/deep
  same '119
80
119' "$(in_container localhost/deep sh -c 'cat /deep/same; ls /deep | grep -c added; rm /deep/added119 &&
    ls /deep/dir* | grep -c file')"
  printf 'FROM localhost/deep\nRUN rm -r /deep/dir1 /deep/added1* && mkdir /deep/dir1\n' |
    run_podman build --network=none --isolation=oci -t localhost/deeper -
  in_container localhost/deeper sh -c 'ls -la /deep >/dev/null; test -z "$(ls -A /deep/dir1)" && ! ls /deep/added1*'
}

kill_containers() {
  local id i ids=()
  for i in 1 2 3 4; do
    ids+=("$(run_podman run -d --network=none localhost/base sh -c \
      'while :; do cp -a /opt/mid/many /opt/mid/x && rm -rf /opt/mid/x; done')")
  done
  sleep 1
  run_podman kill "${ids[@]}"
  for id in "${ids[@]}"; do run_podman rm -f -t 0 "$id"; done
}

# What people's workloads do to a file system, in one container.
programs_that_stress() {
  in_container localhost/base bash -ec '
    cd /opt/mid && cp -a /usr/share /opt/mid/share && diff -r --no-dereference /usr/share /opt/mid/share
    tar -C / --exclude=./opt --exclude=./proc --exclude=./sys --exclude=./dev -c . | tar -C /srv -x
    chown -R 1000:1000 /srv && find /srv ! -uid 1000 | (! grep .)
    perl -e "for (1..2000) { open F, q(>), qq(/tmp/f\$_); print F \$_; close F; rename qq(/tmp/f\$_), qq(/tmp/g\$_) }"
    test $(ls /tmp | wc -l) = 2000
    rm -rf /srv/* /tmp/g* && test -z "$(ls -A /srv)"'
}

base_is_unchanged() { same "$(cat "$work/base.before")" "$(base_fingerprint)" "the base image in the storage"; }

nothing_is_left() {
  run_podman rm -af -t 0
  if [ "$core" = no ]; then
    # On a deletion of everything the storage must not be busy.
    run_podman rmi -af >/dev/null
    test -z "$(run_podman images -q)"
  fi
  wait_for "the daemons to end" 20 no_daemons
}
